#!/usr/bin/env python3
"""Measures what open pages of one topology cost the nimbus that serves them.

    scripts/cluster up
    scripts/sk submit examples/word-count/topology.yaml --wait
    python3 benches/live.py HOST:PORT PID TOPOLOGY [--pages 200] [--seconds 60]

PID is the nimbus at HOST:PORT. Each page has a stream of live numbers, and asks for what the page asks for
while the stream arrives: the state and metrics of minutes every 30 s, errors and nimbuses every 15 s.
It prints the CPU time of the nimbus as a share of a core: with the streams alone, and with the requests.
"""

import argparse
import http.client
import json
import os
import selectors
import socket
import threading
import time

OWN = "/api/stormkeeper/v1"


def cpu(pid):
    """CPU time of a process in seconds."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_stream(host, port, topology):
    stream = socket.create_connection((host, port), timeout=10)
    path = f"{OWN}/topology/{topology}/live/events"
    stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
    stream.setblocking(False)
    return stream


class Readers(threading.Thread):
    """Reads all streams, and counts their events."""

    def __init__(self, streams):
        super().__init__(daemon=True)
        self.selector = selectors.DefaultSelector()
        self.n_events = self.n_bytes = self.n_ended = 0
        self.oldest_ms = 0
        self.is_over = False
        self.first = streams[0]
        self.text = b""
        for stream in streams:
            self.selector.register(stream, selectors.EVENT_READ)

    def run(self):
        while not self.is_over:
            for key, _ in self.selector.select(0.5):
                part = key.fileobj.recv(1 << 20)
                if not part:
                    self.selector.unregister(key.fileobj)
                    self.n_ended += 1
                self.n_bytes += len(part)
                self.n_events += part.count(b"\nevent: live") + part.startswith(b"event: live")
                if key.fileobj is self.first:
                    self.look(part)

    def look(self, part):
        """Notes the age of the numbers of one stream."""
        self.text += part
        *lines, self.text = self.text.split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self.oldest_ms = max(self.oldest_ms, json.loads(line[6:]).get("ageMs", 0))


def requests(topology):
    """Paths that a page asks for, with the seconds between two requests."""
    latest = f"{OWN}/metrics/topology/{topology}/latest?limit=5000&level=component&window=60"
    data = f"{OWN}/metrics/data?limit=5000&topology={topology}&window=60&from=-1h&to=now"
    return [
        (f"{OWN}/topology/{topology}", 30),
        (f"{OWN}/topology/{topology}/errors", 15),
        (f"{OWN}/nimbus/summary", 15),
        (latest, 30),
        (f"{data}&level=topology&pattern=Emitted", 30),
        (f"{data}&level=component&pattern=Failed", 30),
        (f"{data}&level=component&pattern=ProcessLatency", 30),
        (f"/api/v1/topology/{topology}/visualization", 60),
    ]


class Asking(threading.Thread):
    """Sends the requests of all pages over a few connections, evenly spread."""

    def __init__(self, host, port, topology, pages):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(host, port, timeout=20)
        paths = requests(topology)
        self.due = [(period * page / pages, path, period) for path, period in paths for page in range(pages)]
        self.n_requests = 0
        self.is_over = False

    def run(self):
        begin = time.monotonic()
        queue = sorted(self.due)
        while not self.is_over:
            at, path, period = queue.pop(0)
            time.sleep(max(0, begin + at - time.monotonic()))
            self.connection.request("GET", path)
            response = self.connection.getresponse()
            response.read()
            assert response.status == 200, f"{path}: {response.status}"
            self.n_requests += 1
            again = (at + period, path, period)
            low = 0
            while low < len(queue) and queue[low] < again:
                low += 1
            queue.insert(low, again)


def measured(pid, seconds):
    before, begin = cpu(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu(pid) - before) / (time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nimbus")
    parser.add_argument("pid", type=int)
    parser.add_argument("topology")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    host, port = args.nimbus.rsplit(":", 1)
    idle = measured(args.pid, args.seconds / 2)
    print(f"nobody looks: {idle:.1f} % of a core", flush=True)
    streams = [open_stream(host, int(port), args.topology) for _ in range(args.pages)]
    readers = Readers(streams)
    readers.start()
    time.sleep(5)
    n_events, n_bytes = readers.n_events, readers.n_bytes
    share = measured(args.pid, args.seconds)
    per_second = (readers.n_events - n_events) / args.seconds
    kib = (readers.n_bytes - n_bytes) / args.seconds / 1024
    print(f"{args.pages} streams: {share:.1f} % of a core, {per_second:.0f} events and {kib:.0f} KiB per second, "
          f"numbers at most {readers.oldest_ms} ms old when they are sent, {readers.n_ended} streams ended", flush=True)
    asking = Asking(host, int(port), args.topology, args.pages)
    asking.start()
    time.sleep(5)
    n_requests = asking.n_requests
    share = measured(args.pid, args.seconds)
    per_second = (asking.n_requests - n_requests) / args.seconds
    print(f"and their {per_second:.0f} requests per second: {share:.1f} % of a core", flush=True)
    readers.is_over = asking.is_over = True


if __name__ == "__main__":
    main()
