"""Extracts path and status from lines of an access log in the "combined" format:

    203.0.113.9 - - [21/Mar/2025:06:00:01 +0000] "GET /tide?day=2 HTTP/1.1" 200 5120 "-" "agent"

A malformed line is reported as a task error and counted on the stream `broken` by its first
fault: `quotes`, `request` or `status`.
"""

import re

from stormkeeper import BasicBolt

STATUS_AND_SIZE = re.compile(r"[0-9][0-9][0-9]\Z"), re.compile(r"([0-9]+|-)\Z")


class Parse(BasicBolt):
    def process(self, tup):
        source, line = tup.values
        try:
            self.emit(path_and_status(line))
        except Broken as broken:
            self.report_error("%s: %s: %s" % (source, broken.explanation, line))
            self.emit([broken.reason], stream="broken")


class Broken(Exception):
    def __init__(self, reason, explanation):
        super().__init__(reason)
        self.reason = reason
        self.explanation = explanation


def path_and_status(line):
    """Returns [path without its query, status], or raises `Broken`."""
    parts = line.split('"')
    if len(parts) != 7:
        raise Broken("quotes", "three quoted parts expected")
    request = parts[1].split()
    if len(request) != 3:
        raise Broken("request", "method, path and protocol expected")
    answer = parts[2].split()
    if len(answer) != 2 or not all(shape.match(text) for shape, text in zip(STATUS_AND_SIZE, answer)):
        raise Broken("status", "status and size expected")
    return [request[1].split("?", 1)[0], answer[0]]


if __name__ == "__main__":
    Parse().run()
