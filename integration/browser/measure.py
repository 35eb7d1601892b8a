"""Speed of the web page of a running nimbus, in a headless Chromium.

  measure.py HOST:PORT [TIMES]
"""

import statistics
import sys
from typing import List

from devtools import Browser

TIMES = 9
# A graph like those of people: each component receives from one to three of the ten before it.
LAYOUT = """(async () => {
  const name = document.querySelector('link[rel=modulepreload][href$="parts/layout.js"]').href;
  const { layout } = await import(name);
  const ids = Array.from({ length: 200 }, (_, n) => `component-${n}`);
  let seed = 7;
  const random = (below) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 65536) % below; };
  const links = ids.flatMap((to, n) => (n < 5 ? [] : Array.from({ length: 1 + random(2) },
    () => ({ from: ids[Math.max(0, n - 1 - random(10))], to }))));
  const took = [];
  for (let n = 0; n < 9; n += 1) {
    const began = performance.now();
    layout(ids, links, { length: 186, breadth: 74 }, { length: 96, breadth: 26 });
    took.push(performance.now() - began);
  }
  return [links.length, took];
})()"""


def spread(values: List[float]) -> str:
    return f"median {statistics.median(values):.0f} ms, {min(values):.0f} to {max(values):.0f}"


def main(host: str, times: int) -> None:
    browser = Browser()
    try:
        paints: List[float] = []
        for _ in range(times):
            # A context of its own: nothing is in its cache.
            page = browser.open()
            page.look()
            page.go(f"http://{host}/ui/")
            page.wait_for_text("Slots in use")
            paints.append(page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        sizes = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/ui/'))"
        plain = page.run(f"{sizes}.reduce((sum, one) => sum + one.decodedBodySize, 0)")
        sent = page.run(f"{sizes}.reduce((sum, one) => sum + one.encodedBodySize, 0)")
        edges, layouts = page.run(LAYOUT)
        print(f"first paint, {times} times without a cache: {spread(paints)}")
        print(f"files: {plain / 1024:.0f} KiB, {sent / 1024:.0f} KiB as sent")
        print(f"layout of 200 components with {edges} edges: {spread(layouts)}")
    finally:
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else TIMES)
