"""Counts words, and logs the most frequent ones after a change."""

from collections import Counter

from stormkeeper import BasicBolt, is_tick


class Count(BasicBolt):
    def initialize(self, conf, context):
        self.counts = Counter()
        self.changed = False

    def process(self, tup):
        if not is_tick(tup):
            self.counts[self.value(tup, "word")] += 1
            self.changed = True
        elif self.changed:
            words = ", ".join("%s %d" % item for item in self.counts.most_common(3))
            self.log("%d words; most frequent: %s" % (sum(self.counts.values()), words))
            self.changed = False


if __name__ == "__main__":
    Count().run()
