"""Emits each word in capitals."""

from stormkeeper import BasicBolt


class Upper(BasicBolt):
    def process(self, tup):
        number, word = tup.values
        self.emit([number, word.upper(), {"length": len(word)}])


Upper().run()
