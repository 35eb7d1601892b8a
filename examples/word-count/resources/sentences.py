"""Emits every line of the given text files, then idles.

Several tasks share the work: task i of n emits lines i, i + n, i + 2n, ... of all files in
order, so every line is emitted by exactly one task.
"""

import glob
import itertools
import os
import time

from stormkeeper import Spout

LINES_PER_CALL = 50


class Sentences(Spout):
    def initialize(self, conf, context):
        self.files = find_files(conf.get("word.count.files", "text/*.txt"))
        if not self.files:
            raise FileNotFoundError(
                "word.count.files: nothing matches %r below %s" % (conf.get("word.count.files"), os.getcwd())
            )
        self.rate = float(conf.get("word.count.rate", 0))
        self.started = time.monotonic()
        self.emitted = 0
        share = (self.peers.index(self.task_id), len(self.peers))
        self.lines = repeated_lines(self.files, int(conf.get("word.count.repeat", 1)), *share)
        self.log("reading %d files, share %d of %d" % (len(self.files), share[0] + 1, share[1]))

    def next_tuple(self):
        for line_id, line in itertools.islice(self.lines, self.lines_due()):
            self.emit([line], id=line_id)
            self.emitted += 1

    def lines_due(self):
        if self.rate <= 0:
            return LINES_PER_CALL
        due = int((time.monotonic() - self.started) * self.rate) - self.emitted
        return max(0, min(due, LINES_PER_CALL))

    def fail(self, id):
        self.log("line %s was not processed" % id, "warn")


def find_files(patterns):
    """Returns the files that match one pattern or a list of them, each once, sorted."""
    if isinstance(patterns, str):
        patterns = [patterns]
    found = {path for pattern in patterns for path in glob.glob(os.path.expanduser(pattern))}
    return sorted(path for path in found if os.path.isfile(path))


def repeated_lines(files, repeat, index, count):
    """Yields (id, line) for this task's share; `repeat` 0 never ends."""
    rounds = itertools.count(1) if repeat == 0 else range(1, repeat + 1)
    for round_number in rounds:
        for number, (name, line_number, line) in enumerate(all_lines(files)):
            if number % count == index:
                yield "%d:%s:%d" % (round_number, name, line_number), line


def all_lines(files):
    for path in files:
        # A byte that is not UTF-8 becomes a replacement character; the words around it are counted.
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            name = os.path.basename(path)
            for line_number, line in enumerate(file, 1):
                yield name, line_number, line.rstrip("\n")


if __name__ == "__main__":
    Sentences().run()
