"""A spout of pystorm: emits numbered lines, and again those that failed."""

import sys

sys.path.insert(0, "PYSTORM")

from pystorm import Spout


class Lines(Spout):
    def initialize(self, conf, context):
        with open(conf["lines.file"]) as file:
            self.lines = dict(enumerate(file.read().splitlines()))
        self.due = sorted(self.lines)
        self.done = open(conf["done.file"], "a")

    def next_tuple(self):
        if self.due:
            number = self.due.pop(0)
            self.emit([number, self.lines[number]], tup_id=number)

    def ack(self, tup_id):
        self.done.write("%d\n" % tup_id)
        self.done.flush()

    def fail(self, tup_id):
        self.due.append(tup_id)


Lines().run()
