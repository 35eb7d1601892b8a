"""Orders that come in waves of some minutes."""

import math
import random
import time

from stormkeeper import Spout

PERIOD = 0.05
WAVE_SECONDS = 90


class Orders(Spout):
    n = 0

    def next_tuple(self):
        orders = PERIOD * (60 + 12 * math.sin(time.time() / WAVE_SECONDS))
        for _ in range(int(orders + random.random())):
            self.n += 1
            self.emit([self.n], id=self.n)
            if random.random() < 0.03:
                self.emit([self.n], stream="refunds")
        time.sleep(PERIOD)


if __name__ == "__main__":
    Orders().run()
