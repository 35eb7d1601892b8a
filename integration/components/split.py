"""Splits lines into words, in the style of Storm's own library, and fails every line once."""

import storm_style

failed = set()


def process(tup, conf):
    number, line = tup["tuple"]
    if number not in failed:
        failed.add(number)
        raise ValueError("the first attempt of %d" % number)
    for word in line.split():
        if storm_style.emit([word], tup) == []:
            raise ValueError("nobody received %r" % word)


storm_style.run(process)
