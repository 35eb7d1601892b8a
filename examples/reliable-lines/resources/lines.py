"""Emits the lines of a file, and remembers how far they were processed.

The id of a tuple is the position of its line in the file. A line that fails is emitted again.
The position of the oldest line that is not acked is stored, so that a new process of this spout,
after a crash of its worker or of its host, goes on from there: no line is lost, and at most those
that were in flight are emitted twice.

The position is in the file `position` in the directory `lines.dir`. It is replaced atomically
(written under another name, then renamed). Put it where the next host finds it too, for instance
in a database, if the task may move to another host.
"""

import os
import time
from collections import deque

import place
from stormkeeper import Spout


class Lines(Spout):
    def initialize(self, conf, context):
        self.position_file = os.path.join(place.directory(conf), "position")
        self.offset = self.stored = self.read_position()
        self.file = open(os.path.expanduser(conf["lines.file"]), "rb")
        self.file.seek(self.offset)
        self.rate = float(conf.get("lines.rate", 0))
        self.started, self.emitted = time.monotonic(), 0
        # Lines that are neither acked nor failed for good, by position, the oldest first.
        self.pending = {}
        self.failed = deque()
        self.log("beginning at byte %d" % self.offset)

    def next_tuple(self):
        if self.failed:
            self.emit_line(self.failed.popleft())
        elif self.is_due():
            line = self.file.readline()
            if not line.endswith(b"\n"):
                # The end of the file, or of what was written of its last line.
                self.file.seek(self.offset)
                return
            offset, self.offset = self.offset, self.offset + len(line)
            self.pending[offset] = line.decode("utf-8", "replace").rstrip("\n")
            self.emitted += 1
            self.emit_line(offset)

    def emit_line(self, offset):
        self.emit([offset, self.pending[offset]], id=offset)

    def is_due(self):
        return self.rate <= 0 or (time.monotonic() - self.started) * self.rate >= self.emitted

    def ack(self, id):
        del self.pending[id]
        oldest = next(iter(self.pending), self.offset)
        if oldest != self.stored:
            self.write_position(oldest)

    def fail(self, id):
        self.failed.append(id)

    def read_position(self):
        try:
            with open(self.position_file) as file:
                return int(file.read())
        except FileNotFoundError:
            return 0

    def write_position(self, offset):
        with open(self.position_file + ".new", "w") as file:
            file.write("%d\n" % offset)
        os.replace(self.position_file + ".new", self.position_file)
        self.stored = offset


if __name__ == "__main__":
    Lines().run()
