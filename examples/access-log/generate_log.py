#!/usr/bin/env python3
"""Writes the example's access log to stdout: the same 2,000 lines on every run.

About one line in a hundred is malformed in one of the ways that occur in real logs.

    python3 examples/access-log/generate_log.py > examples/access-log/resources/logs/access.log
"""

import datetime
import random

LINES = 2000
SEED = 20250321
START = datetime.datetime(2025, 3, 21, 6, 0, 0)

PATHS = {
    "/": 30,
    "/tide": 22,
    "/wind": 18,
    "/harbour/berths": 12,
    "/harbour/berths/7": 4,
    "/lamp.png": 14,
    "/style.css": 16,
    "/api/warnings": 20,
    "/api/boats": 9,
    "/login": 5,
    "/old-page": 2,
    "/favicon.ico": 8,
}
STATUSES = {
    "/login": {200: 3, 302: 6, 401: 3},
    "/old-page": {301: 1},
    "/favicon.ico": {404: 1},
    "/api/boats": {200: 10, 500: 1, 503: 2},
    "/api/warnings": {200: 20, 304: 14, 429: 1},
}
USUAL_STATUSES = {200: 24, 304: 5, 404: 1}
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) Safari/605.1.15",
    "curl/8.9.1",
    "buoy-client/2.3",
]
REFERERS = ["-", "-", "https://harbour.example/", "https://harbour.example/tide"]


def pick(choose, weights):
    return choose.choices(list(weights), list(weights.values()))[0]


def good_line(choose, when):
    path = pick(choose, PATHS)
    status = pick(choose, STATUSES.get(path, USUAL_STATUSES))
    size = "-" if status in (301, 302, 304) else str(choose.randint(90, 60000))
    method = "POST" if path == "/login" and status != 200 else "GET"
    query = "?day=%d" % choose.randint(0, 6) if path in ("/tide", "/wind") and choose.random() < 0.6 else ""
    address = choose.choice(["192.0.2.%d", "198.51.100.%d", "203.0.113.%d"]) % choose.randint(1, 254)
    return '%s - - [%s +0000] "%s %s%s HTTP/1.1" %d %s "%s" "%s"' % (
        address,
        when.strftime("%d/%b/%Y:%H:%M:%S"),
        method,
        path,
        query,
        status,
        size,
        choose.choice(REFERERS),
        choose.choice(AGENTS),
    )


def broken_line(choose, line):
    ways = [
        # The disk was full: the line is truncated.
        lambda: line[: choose.randint(20, line.rindex('"'))],
        # A client used TLS on the plain-text port.
        lambda: line.replace(line.split('"')[1], "\\x16\\x03\\x01\\x02"),
        # The connection was closed before the request.
        lambda: line.replace(line.split('"')[1], "-"),
        # A log shipper lost the status and the size.
        lambda: '"'.join(line.split('"')[:2] + [" - - "] + line.split('"')[3:]),
        # Another program wrote to the same file.
        lambda: "logrotate: rotating pattern forced from command line",
    ]
    return choose.choice(ways)()


def main():
    choose = random.Random(SEED)
    when = START
    for _ in range(LINES):
        when += datetime.timedelta(seconds=choose.randint(0, 9))
        line = good_line(choose, when)
        print(broken_line(choose, line) if choose.random() < 0.011 else line)


if __name__ == "__main__":
    main()
