"""Emits every line of the log files once, with its file and line number, then idles.

Several tasks share the work: task i of n emits lines i, i + n, i + 2n, ... of all files in
order.
"""

import glob
import itertools
import os

from stormkeeper import Spout

LINES_PER_CALL = 50


class Lines(Spout):
    def initialize(self, conf, context):
        patterns = conf.get("access.log.files", "logs/*.log")
        patterns = [patterns] if isinstance(patterns, str) else patterns
        files = sorted({path for pattern in patterns for path in glob.glob(pattern)})
        if not files:
            raise FileNotFoundError("access.log.files: nothing matches %r below %s" % (patterns, os.getcwd()))
        self.lines = itertools.islice(all_lines(files), self.peers.index(self.task_id), None, len(self.peers))

    def next_tuple(self):
        for source, line in itertools.islice(self.lines, LINES_PER_CALL):
            self.emit([source, line], id=source)

    def fail(self, id):
        self.log("%s was not processed" % id, "warn")


def all_lines(files):
    """Yields ("file:number", line)."""
    for path in files:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield "%s:%d" % (os.path.basename(path), number), line.rstrip("\n")


if __name__ == "__main__":
    Lines().run()
