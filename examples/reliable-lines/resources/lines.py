"""Emits the lines of a file until each is acked, and remembers how far they were processed.

The id of a line is the position of its end. The position up to which every line is acked is stored,
so that a new process of this spout, after a crash of its worker or of its host, goes on from there: no
line is lost, and at most those that were in flight are emitted twice.

The position is in the file `position` in the directory `lines.dir`. It is replaced atomically
(written under another name, then renamed). Put it where the next host finds it too, for instance
in a database, if the task may move to another host.
"""

import os
import time

import place
from stormkeeper import Record, ReliableSpout


class Lines(ReliableSpout):
    def initialize(self, conf, context):
        self.position_file = os.path.join(place.directory(conf), "position")
        position = self.read_position()
        self.file = open(os.path.expanduser(conf["lines.file"]), "rb")
        self.file.seek(position)
        self.rate = float(conf.get("lines.rate", 0))
        self.started, self.emitted = time.monotonic(), 0
        # A line that waits for its ack holds the position back: so many may come again after a crash.
        self.ahead_max = conf["topology.max.spout.pending"] or self.ahead_max
        self.log("beginning at byte %d" % position)

    def read(self):
        if not self.is_due():
            return
        offset = self.file.tell()
        line = self.file.readline()
        if not line.endswith(b"\n"):
            # The end of the file, or of what was written of its last line.
            self.file.seek(offset)
            return
        self.emitted += 1
        text = line.decode("utf-8", "replace").rstrip("\n")
        yield Record(offset + len(line), [offset, text])

    def is_due(self):
        return self.rate <= 0 or (time.monotonic() - self.started) * self.rate >= self.emitted

    def save(self, id):
        with open(self.position_file + ".new", "w") as file:
            file.write("%d\n" % id)
        os.replace(self.position_file + ".new", self.position_file)

    def read_position(self):
        try:
            with open(self.position_file) as file:
                return int(file.read())
        except FileNotFoundError:
            return 0


if __name__ == "__main__":
    Lines().run()
