"""Splits each line at white space and emits its words, unchanged.

White space is the set `[:space:]` of `tr` in the C locale (blank, tab, newline, vertical tab,
form feed, carriage return), so that `tr` and `uniq -c` reproduce the counts exactly.
"""

import re

from stormkeeper import BasicBolt

WORD = re.compile(r"[^ \t\n\v\f\r]+")


class Split(BasicBolt):
    def process(self, tup):
        for word in WORD.findall(tup.values[0]):
            self.emit([word])


if __name__ == "__main__":
    Split().run()
