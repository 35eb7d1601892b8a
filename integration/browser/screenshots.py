"""Pictures of the views of the web page, for the documents; scripts/screenshots starts the cluster.

  screenshots.py HOST:PORT DIRECTORY
  screenshots.py --record DIRECTORY    only writes down from which sources the pictures are, after a change of
                                       them that changes no picture
"""

import hashlib
import os
import sys
from typing import List

from devtools import Browser

UI = os.path.join(os.path.dirname(__file__), "..", "..", "ui")
# File beside the pictures, which a test compares with the sources: a line for each picture.
SOURCES = "sources.txt"
GONE = "[...document.querySelectorAll('tbody th a')].find((one) => one.textContent === 'clicks').click()"
EXPLORER = "#/explorer?topology=shop-ID&m=ProcessLatency@component,basket.value@component"
SIGN_IN = {"access": "required", "actions": True}
# Name, views that it shows, address, texts to wait for, script, width and height, dark.
PICTURES = [
    ("cluster", "cluster", "#/", ["Slots in use", "shop", "cores in use"], "", (1280, 760), False),
    ("topologies", "topologies", "#/topologies", ["shop", "running"], "", (1280, 420), False),
    ("topology", "topology", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (1280, 980), False),
    ("topology-dark", "topology", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (1280, 980), True),
    ("charts", "topology-tabs", "#/topology/shop?tab=charts", ["Process latency, p99", "price"], "", (1280, 980), False),
    ("timeline", "timeline", "#/topology/words?tab=timeline", ["moved", "being drained"], "", (1280, 720), False),
    ("component", "component", "#/component/shop/price", ["Process latency", "Tasks"], "", (1280, 980), False),
    ("explorer", "explorer", EXPLORER, ["price"], "", (1280, 800), False),
    ("gone", "topology past-graph", "#/topologies?show=gone", ["clicks"], GONE, (1280, 860), False),
    ("events", "events", "#/events", ["drained", "moved"], "", (1280, 760), False),
    ("configuration", "settings", "#/configuration", ["nimbus."], "", (1280, 600), False),
    ("settings", "settings", "#/topology/shop?tab=settings", ["topology.workers", "default"], "", (1280, 620), False),
    ("tree", "tree", "#/tree/leader", ["the leading nimbus", "Access control list"], "", (1280, 860), False),
    ("sign-in", "sign-in", "#/", ["This cluster is locked"], "", (1280, 520), False),
    ("phone", "topology", "#/topology/shop", ["busiest", "/s", "fraud-check"], "", (390, 1080), False),
]


def digest(views: List[str]) -> str:
    """Digest of the sources of views, as the test of the page makes it."""
    sha = hashlib.sha256()
    for view in views:
        path = f"views/{view}.js"
        with open(os.path.join(UI, path), "rb") as file:
            for part in [path.encode(), file.read()]:
                sha.update(len(part).to_bytes(8, "little"))
                sha.update(part)
    return sha.hexdigest()[:16]


def record(directory: str) -> None:
    """Writes down from which sources the pictures are."""
    lines = [f"{name}.png {digest(views.split())} {views}\n" for name, views, *_ in sorted(PICTURES)]
    with open(os.path.join(directory, SOURCES), "w", encoding="utf-8") as file:
        file.writelines(lines)


def main(host: str, directory: str) -> None:
    browser = Browser()
    try:
        for name, _views, address, texts, script, (width, height), is_dark in PICTURES:
            page = browser.open()
            if name == "sign-in":
                page.simulate("/api/stormkeeper/v1/session", SIGN_IN)
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
                page.wait_for_text("It ended", "Components", "As it was at its end")
            # Charts and rates of a second request.
            page.wait_for("no request", lambda: page.run("new Promise((done) => setTimeout(done, 1500, true))"))
            assert not page.complaints, f"{name}: {page.complaints}"
            page.picture(os.path.join(directory, f"{name}.png"))
            print(name, flush=True)
    finally:
        browser.close()
    record(directory)


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        record(sys.argv[2])
    else:
        main(*sys.argv[1:])
