"""A batching bolt of pystorm: counts the words between two ticks."""

import sys

sys.path.insert(0, "PYSTORM")

from pystorm import BatchingBolt


class Group(BatchingBolt):
    def group_key(self, tup):
        assert tup.values[1] == len(tup.values[0]), tup.values
        return tup.values[0]

    def process_batch(self, key, tups):
        self.emit([key, len(tups)])


Group().run()
