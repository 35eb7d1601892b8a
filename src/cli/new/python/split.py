"""Emits the words of each line."""

from stormkeeper import BasicBolt


class Split(BasicBolt):
    def process(self, tup):
        for word in self.value(tup, "line").split():
            self.emit([word])


if __name__ == "__main__":
    Split().run()
