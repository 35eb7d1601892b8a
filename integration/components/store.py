"""A bolt of pystorm that acks by hand: appends counted words to a file."""

import sys

sys.path.insert(0, "PYSTORM")

from pystorm import Bolt


class Store(Bolt):
    auto_ack = False

    def initialize(self, conf, context):
        self.file = open(conf["counts.file"], "a")

    def process(self, tup):
        self.file.write("%s\t%d\n" % tuple(tup.values))
        self.file.flush()
        self.ack(tup)


Store().run()
