"""A component that takes its time, by its name."""

import random
import time

from stormkeeper import Bolt, histogram

SECONDS = {"price": 0.0135, "fraud-check": 0.002, "enrich": 0.002}
ENDS = ("store", "audit")


class Work(Bolt):
    def process(self, tup):
        name = self.component_id
        time.sleep(SECONDS.get(name, 0.0004) * random.lognormvariate(0, 0.5))
        if name == "price":
            if random.random() < 0.001:
                self.report_error("there is no price for item %d" % random.randrange(100))
                self.log("there is no price for an item of order %d" % tup.values[0], "warn")
                self.fail(tup)
                return
            histogram("basket.value").update(random.lognormvariate(3, 1))
        if name == "validate" and random.random() < 0.02:
            self.emit(tup.values, stream="rejected", anchors=[tup])
        elif name not in ENDS:
            self.emit(tup.values, anchors=[tup])
        self.ack(tup)


if __name__ == "__main__":
    Work().run()
