"""Pictures of the views of the web page, for the documents; scripts/screenshots starts the cluster.

  screenshots.py HOST:PORT DIRECTORY
"""

import os
import sys

from devtools import Browser

GONE = "[...document.querySelectorAll('tbody th a')].find((one) => one.textContent === 'clicks').click()"
EXPLORER = "#/explorer?topology=shop-ID&m=ProcessLatency@component,basket.value@component"
# Name, address, texts to wait for, script, width and height, dark.
PICTURES = [
    ("cluster", "#/", ["Slots in use", "shop", "cores in use"], "", (1280, 760), False),
    ("topologies", "#/topologies", ["shop", "running"], "", (1280, 420), False),
    ("topology", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (1280, 980), False),
    ("topology-dark", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (1280, 980), True),
    ("charts", "#/topology/shop?tab=charts", ["Process latency, p99", "price"], "", (1280, 980), False),
    ("timeline", "#/topology/words?tab=timeline", ["moved", "being drained"], "", (1280, 720), False),
    ("component", "#/component/shop/price", ["Process latency", "Tasks"], "", (1280, 980), False),
    ("explorer", EXPLORER, ["price"], "", (1280, 800), False),
    ("gone", "#/topologies?show=gone", ["clicks"], GONE, (1280, 640), False),
    ("events", "#/events", ["drained", "moved"], "", (1280, 760), False),
    ("configuration", "#/configuration", ["nimbus."], "", (1280, 600), False),
    ("phone", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (390, 1080), False),
]


def main(host: str, directory: str) -> None:
    browser = Browser()
    try:
        for name, address, texts, script, (width, height), is_dark in PICTURES:
            page = browser.open()
            page.look(width, height, is_dark, is_phone=width < 640)
            if "shop-ID" in address:
                page.go(f"http://{host}/ui/#/topology/shop")
                page.wait_for_text("fraud-check")
                shop = page.run("document.querySelector('.facts code').textContent")
                address = address.replace("shop-ID", shop)
            page.go(f"http://{host}/ui/{address}")
            page.wait_for_text(*texts, seconds=60)
            if script:
                page.run(script)
                page.wait_for_text("It ended", "Components")
            # Charts and rates of a second request.
            page.wait_for("no request", lambda: page.run("new Promise((done) => setTimeout(done, 1500, true))"))
            assert not page.complaints, f"{name}: {page.complaints}"
            page.picture(os.path.join(directory, f"{name}.png"))
            print(name, flush=True)
    finally:
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
