"""Removes blanks at the ends of a line, and writes it in lower case."""

from stormkeeper import BasicBolt


class Clean(BasicBolt):
    def process(self, tup):
        offset, line = tup.values
        self.emit([offset, line.strip().lower()])


if __name__ == "__main__":
    Clean().run()
