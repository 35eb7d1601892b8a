"""Appends each line with its position to a file, and acks it then.

The file is `stored-<task>.tsv` in the directory `lines.dir`. A line that comes twice is there
twice: whoever reads the files takes each position once.
"""

import os

import place
from stormkeeper import Bolt


class Store(Bolt):
    def initialize(self, conf, context):
        path = os.path.join(place.directory(conf), "stored-%d.tsv" % self.task_id)
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def process(self, tup):
        os.write(self.file, ("%d\t%s\n" % tuple(tup.values)).encode("utf-8"))
        self.ack(tup)


if __name__ == "__main__":
    Store().run()
