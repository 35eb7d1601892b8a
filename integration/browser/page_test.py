"""The web page in a browser, against a cluster that the caller has started.

  page_test.py views HOST:PORT TOPOLOGY GONE   every view, light and dark, on a desktop and on a phone
  page_test.py away HOST:PORT TOPOLOGY OTHER   says `loaded`, expects that the nimbus dies, says `away`, and
                                               expects that it comes back
  page_test.py roles HOST:PORT TOPOLOGY READER OPERATOR   signs in with these tokens; the operator kills it
  page_test.py empty HOST:PORT                            a cluster in which nothing was ever submitted
  page_test.py full HOST:PORT                             as if it had 500 topologies; one is there
  page_test.py secured HOST:PORT TOPOLOGY ADMIN KEY       over TLS, with a certificate of this public key (PEM),
                                                          where changes are switched off
"""

import base64
import hashlib
import os
import sys
import time
import urllib.parse
from typing import List, Tuple

from devtools import Browser, Page

# Time for the first paint on loopback, of a machine that does nothing else; the test allows for a busy one.
PAINT_MS_MAX = 3000
LOOKS = [
    ("desktop, light", dict(width=1280, height=900)),
    ("desktop, dark", dict(width=1280, height=900, is_dark=True)),
    ("phone, light", dict(width=390, height=844, is_phone=True)),
    ("phone, dark", dict(width=390, height=844, is_dark=True, is_phone=True)),
]
with open(os.path.join(os.path.dirname(__file__), "axe", "axe.min.js"), encoding="utf-8") as file:
    AXE = file.read()
MARKUP = "<img src=x onerror=alert(1)>"


def views(topology: str, gone: str) -> List[Tuple[str, List[str]]]:
    """Address of each view, and texts that are its data."""
    return [
        ("#/", ["Slots in use", "127.0.0.1", topology, "Nimbuses", "leader", "follower", "Emitted"]),
        ("#/topologies", [topology, "running", "of 5"]),
        ("#/topologies?show=gone", [gone, "Ended by"]),
        (f"#/topology/{topology}", ["numbers", "noisy", "sink", "spout", "Busy", "/s", "Live, ", "Process, mean"]),
        (f"#/topology/{topology}?window=60", ["The window ends at", "Process, p50"]),
        (f"#/topology/{topology}?window=all", ["numbers", "noisy", "sink", "Transferred"]),
        (f"#/topology/{topology}?tab=charts", ["Process latency, p99", "emitted", "noisy"]),
        (f"#/topology/{topology}?tab=workers", ["127.0.0.1:", "CPU", "MiB"]),
        (f"#/topology/{topology}?tab=timeline", ["placed", "had no slot", "noisy"]),
        (f"#/topology/{topology}?tab=errors", [f"broken {MARKUP}", "noisy"]),
        (f"#/topology/{topology}?tab=events", ["submitted", "placed"]),
        (f"#/topology/{topology}?tab=logs", [f"said {MARKUP}", "WARN"]),
        (f"#/topology/{topology}?tab=settings", ["test.markup", MARKUP, "the topology", "topology.workers", "default"]),
        (f"#/topology/{gone}", ["gone", "It ended", "sink", "As it was at its end", "/s"]),
        (f"#/component/{topology}/noisy", ["Process latency", "p99", "Tasks", "Streams", f"broken {MARKUP}"]),
        (f"#/component/{topology}/numbers", ["numbers", "spout", "emitted", "Now", "emits"]),
        ("#/explorer", ["Choose a topology"]),
        (
            f"#/explorer?topology={topology}&m=Emitted@component,ProcessLatency@component~p50",
            ["numbers", "Emitted", "p50", "CSV"],
        ),
        ("#/explorer?topology=__CLUSTER__&m=MemoryUsed@topology", ["MemoryUsed", "MiB"]),
        ("#/events", ["submitted", "elected", gone]),
        ("#/configuration", ["topology.workers", "nimbus."]),
        ("#/tree", ["The tree of this cluster", "storms", "term", "Access control list"]),
        ("#/tree/storms", ["Parent of /storms/{topology-id}", topology, "leader"]),
        ("#/tree/supervisors", ["Parent of /supervisors/{supervisor-id}"]),
        ("#/tree/leader", ["the leading nimbus", "ephemeral", '"term"', "everybody", "zxid"]),
        ("#/tree/no/such/znode", ["There is no such znode", "Go to its parent"]),
        ("#/nothing/here", ["There is no such view"]),
    ]


def check_quiet(page: Page, where: str) -> None:
    """No error, no warning, nothing that the policy refused, and no markup that became an element."""
    page.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
    # Hosts and the cluster have no metrics in their first minute.
    young = [one for one in page.complaints if "404" in one and ("__SUPERVISOR__" in one or "__CLUSTER__" in one)]
    # A browser complains of every 404, also of those that a view has words for.
    known = [one for one in page.complaints if "404" in one and "/tree?path=%2Fno%2Fsuch%2Fznode" in one]
    found = [one for one in page.complaints if one not in young + known]
    assert not found, f"{where}: {found}"
    made = page.run("document.querySelectorAll('main img, main script, main b[onclick]').length")
    assert made == 0, f"{where}: markup in data became {made} elements"


def test_views(host: str, topology: str, gone: str) -> None:
    base = f"http://{host}/ui/"
    browser = Browser()
    try:
        for name, look in LOOKS:
            page = browser.open()
            page.look(**look)
            page.go(f"http://{host}/")
            page.wait_for("the page", lambda: page.run("location.pathname") == "/ui/")
            for address, texts in views(topology, gone):
                page.go(base + address)
                page.wait_for_text(*texts)
                where = f"{name}, {address}"
                wide = page.run("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{where}: the page is {wide} px wider than the window"
                check_quiet(page, where)
                if not look.get("is_phone"):
                    check_accessible(page, where)
                    check_quiet(page, f"{where}, with axe-core")
            hosts = {urllib.parse.urlsplit(url).netloc for url in page.requested}
            assert hosts == {host}, f"the page asks other hosts: {hosts}"
        check_paint(browser, base)
        check_graph(browser, base, topology)
        check_past_graph(browser, base, gone)
        check_picture(browser, base, topology)
        check_keyboard(browser, base, topology)
    finally:
        browser.close()


def check_accessible(page: Page, where: str) -> None:
    """No violation that axe-core knows: contrast, names, roles, order."""
    page.run(AXE + "; 0")
    found = page.run(
        "axe.run(document, { resultTypes: ['violations'] }).then((result) => result.violations.map("
        "({ id, nodes }) => [id, nodes.length, nodes[0].html.slice(0, 200), nodes[0].failureSummary.slice(0, 300)]))"
    )
    assert not found, f"{where}: {found}"


def check_paint(browser: Browser, base: str) -> None:
    page = browser.open()
    page.look()
    page.go(base)
    page.wait_for_text("Slots in use")
    paint = page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    sizes = page.run("performance.getEntriesByType('resource').filter((one) => one.name.includes('/ui/'))"
                     ".reduce((sum, one) => sum + one.encodedBodySize, 0)")
    print(f"first paint after {paint:.0f} ms; {sizes / 1024:.0f} KiB of files")
    assert paint < PAINT_MS_MAX, f"{paint} ms"
    assert sizes < 100 << 10, f"{sizes} bytes"


def check_graph(browser: Browser, base: str, topology: str) -> None:
    """Edges, their rates, and the component to which a node leads."""
    page = browser.open()
    page.look()
    page.go(f"{base}#/topology/{topology}")
    page.wait_for("two edges with rates", lambda: page.run(
        "[...document.querySelectorAll('.edge text')].filter((one) => one.textContent.includes('/s')).length") >= 2)
    ages = set()
    for _ in range(3):
        ages.add(page.run("document.querySelector('.live-age').textContent"))
        page.run("new Promise((done) => setTimeout(done, 1200))")
    live = [float(age.split(",")[1].split()[0]) for age in ages if age.startswith("Live")]
    assert len(live) == len(ages) and max(live) < 4, f"the numbers are old: {ages}"
    nodes = page.run("[...document.querySelectorAll('.node > title')].map((one) => one.textContent)")
    assert len(nodes) == 3 and any(one.startswith("spout numbers, 1 task") for one in nodes), nodes
    page.run("[...document.querySelectorAll('.node')].find((one) => one.textContent.includes('noisy'))"
             ".dispatchEvent(new MouseEvent('click', { bubbles: true }))")
    page.wait_for_text("Streams", "noisy")
    check_quiet(page, "the graph")


def check_past_graph(browser: Browser, base: str, gone: str) -> None:
    """A topology that is gone has its components, and the edge on which tuples were sent."""
    page = browser.open()
    page.look()
    page.go(f"{base}#/topology/{gone}")
    page.wait_for("an edge", lambda: page.run("document.querySelectorAll('.graph .edge path').length") == 1)
    nodes = page.run("[...document.querySelectorAll('.node > title')].map((one) => one.textContent)")
    assert len(nodes) == 2 and any(one.startswith("spout ticks, 1 task") for one in nodes), nodes
    assert any(one.startswith("bolt sink, 2 tasks") for one in nodes), nodes
    assert "sink" in page.run("document.querySelector('.graph .edge title').textContent")
    check_quiet(page, "the graph of a topology that is gone")


def check_picture(browser: Browser, base: str, topology: str) -> None:
    """The charts of the explorer as a PNG: it has their size, and lines in their colours."""
    page = browser.open()
    page.look()
    page.go(f"{base}#/explorer?topology={topology}&m=Emitted@component,ProcessLatency@component")
    page.wait_for_text("numbers", "PNG")
    page.run("window.saved = []; window.make = URL.createObjectURL;"
             "URL.createObjectURL = (blob) => { window.saved.push(blob); return window.make(blob); }; 0")
    page.click(".filters button", "PNG")
    page.wait_for("the picture", lambda: page.run("window.saved.length") == 1)
    kind, width, height, colours = page.run("""createImageBitmap(window.saved[0]).then((picture) => {
      const canvas = new OffscreenCanvas(picture.width, picture.height);
      const pen = canvas.getContext("2d");
      pen.drawImage(picture, 0, 0);
      const { data } = pen.getImageData(0, 0, picture.width, picture.height);
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
      const line = getComputedStyle(document.documentElement).getPropertyValue("--s0").trim();
      return [window.saved[0].type, picture.width, picture.height, seen.has(parseInt(line.slice(1), 16))];
    })""")
    assert kind == "image/png" and width == 2400 and height > 1200, (kind, width, height)
    assert colours, "no line in the first colour"
    check_quiet(page, "the picture")


def check_keyboard(browser: Browser, base: str, topology: str) -> None:
    """Views and the search by keys; a table is sorted by a button."""
    page = browser.open()
    page.look()
    page.go(base)
    page.wait_for_text("Slots in use")
    press(page, "g")
    press(page, "t")
    page.wait_for_text("Gone 1")
    press(page, "/")
    assert page.run("document.activeElement.type") == "search"
    page.call("Input.insertText", {"text": "nothing like this"})
    page.wait_for_text("No topology matches")
    page.run("document.activeElement.select()")
    page.call("Input.insertText", {"text": topology[:4]})
    page.wait_for("one row", lambda: page.run("document.querySelectorAll('tbody tr').length") == 1)
    page.click("thead button", "Up")
    page.wait_for("the order", lambda: page.run("Boolean(document.querySelector('th[aria-sort=descending]'))"))
    check_quiet(page, "the keyboard")


def press(page: Page, key: str) -> None:
    page.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "text": key})
    page.call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})


def say(word: str) -> None:
    print(word, flush=True)


def test_away(host: str, topology: str, other: str) -> None:
    browser = Browser()
    try:
        page = browser.open()
        page.look()
        page.go(f"http://{host}/ui/#/topology/{topology}")
        page.wait_for_text("numbers", "Components")
        # The frame asks for the other nimbuses on its own.
        time.sleep(1)
        say("loaded")
        page.wait_for_text("This nimbus does not answer.", other, "Trying again", seconds=60)
        page.wait_for_text("numbers", "Components")
        assert page.run("[...document.querySelectorAll('.away a')].map((one) => one.href)") == [
            f"http://{other}/ui/#/topology/{topology}"]
        page.click(".away a", other)
        page.wait_for_text("numbers", f"Served by {other}")
        page.go(f"http://{other}/ui/#/")
        back = browser.open()
        back.look()
        say("away")
        back.wait_for("the nimbus", lambda: answers(back, f"http://{host}/ui/"), seconds=90)
        back.wait_for_text("Slots in use", seconds=60)
    finally:
        browser.close()


def answers(page: Page, url: str) -> bool:
    page.go(url)
    return "Stormkeeper" in page.text()


def test_roles(host: str, topology: str, reader: str, operator: str) -> None:
    base = f"http://{host}/ui/"
    browser = Browser()
    try:
        page = browser.open()
        page.look()
        page.go(f"{base}#/topology/{topology}")
        page.wait_for_text("Sign in", "This cluster is locked")
        sign_in(page, "skt_this-is-not-a-token-of-anybody")
        page.wait_for_text("the token is unknown")
        sign_in(page, reader)
        page.wait_for_text("grafana", "reader", "Components")
        assert "Tree" not in page.run("document.querySelector('header.top nav').textContent"), "for admins only"
        page.wait_for_text("Your role does not change topologies.")
        assert not page.run("[...document.querySelectorAll('button')].some((one) => one.textContent.includes('Kill'))")
        cookies = page.run("document.cookie")
        assert cookies == "", f"a script can read {cookies}"
        page.click("button", "Sign out")
        page.wait_for_text("This cluster is locked")
        sign_in(page, operator)
        page.wait_for_text("bob", "Deactivate", "Kill")
        page.click("button", "Deactivate")
        page.click("dialog button.main", "Deactivate")
        page.wait_for_text("inactive")
        page.click("button", "Kill")
        page.wait_for_text("This cannot be undone")
        page.run("document.querySelector('dialog input').select()")
        page.call("Input.insertText", {"text": "0"})
        page.click("dialog button.danger", "Kill it")
        page.wait_for_text("It ended", seconds=60)
        refused = [one for one in page.complaints if "401" not in one and "404" not in one]
        assert not refused, refused
    finally:
        browser.close()


def test_empty(host: str) -> None:
    """Views without anything to show say what to do."""
    base = f"http://{host}/ui/"
    browser = Browser()
    try:
        for name, look in LOOKS:
            page = browser.open()
            page.look(**look)
            for address, texts in [
                ("#/", ["No topology runs", "stormkeeper submit", "free"]),
                ("#/topologies", ["No topology runs", "stormkeeper submit"]),
                ("#/topologies?show=gone", ["None is gone"]),
                ("#/topology/none", ["This cannot be shown", "stormkeeper list"]),
                ("#/explorer", ["Choose a topology"]),
                ("#/events?q=nothing", ["No event matches"]),
                ("#/tree/storms", ["Children 0", "None."]),
            ]:
                page.go(base + address)
                page.wait_for_text(*texts)
                where = f"empty, {name}, {address}"
                wide = page.run("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{where}: the page is {wide} px wider than the window"
                page.complaints = [one for one in page.complaints if "404" not in one]
                check_quiet(page, where)
                check_accessible(page, where)
    finally:
        browser.close()


TOPOLOGIES = 500
# Time from a letter in a search to the list that is drawn; the test allows for a busy machine.
SEARCH_MS_MAX = 1500
OWN = "/api/stormkeeper/v1"


def test_full(host: str) -> None:
    """Many topologies, of which one is there: they are found, sorted and drawn without a lag."""
    base = f"http://{host}/ui/"
    browser = Browser()
    try:
        page = browser.open()
        page.look()
        page.go(base)
        page.wait_for_text("Slots in use")
        real = page.run(f"fetch('{OWN}/topology/summary').then((answer) => answer.json())")
        pattern = real["topologies"][0]
        many = [dict(pattern, id=f"many-{n}-1-{n}", name=f"many-{n}", tasksTotal=n, owner=MARKUP) for n in range(TOPOLOGIES)]
        past = page.run(f"fetch('{OWN}/metrics/history').then((answer) => answer.json())")
        ended = dict(next(one for one in past["topologies"] if one.get("killedMs")), killReason=MARKUP)
        past["topologies"] = [dict(ended, id=f"past-{n}-1-{n}", name=f"past-{n}") for n in range(TOPOLOGIES)]
        page.simulate(f"{OWN}/topology/summary", dict(real, topologies=many))
        page.simulate(f"{OWN}/metrics/history", past)
        for address, word in [("#/topologies", "many"), ("#/topologies?show=gone", "past")]:
            page.go("about:blank")
            page.go(base + address)
            rows = "document.querySelectorAll('tbody tr').length"
            page.wait_for("all rows", lambda: page.run(rows) == TOPOLOGIES)
            took = page.run(type_and_measure(f"{word}-499"))
            assert page.run(rows) == 1, page.text()
            print(f"{address}: a search in {TOPOLOGIES} topologies took {took:.0f} ms")
            assert took < SEARCH_MS_MAX, took
            page.run(type_and_measure(""))
            check_quiet(page, f"full, {address}")
            check_accessible(page, f"full, {address}")
        page.go("about:blank")
        page.go(base)
        page.wait_for_text(str(TOPOLOGIES), "Slots in use")
        check_quiet(page, "full, the cluster")
    finally:
        browser.close()


def type_and_measure(text: str) -> str:
    """Script that fills the search, and returns the milliseconds until the next picture."""
    return f"""(async () => {{
      const field = document.querySelector("[data-search]");
      const began = performance.now();
      field.value = {text!r};
      field.dispatchEvent(new Event("input", {{ bubbles: true }}));
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
      return performance.now() - began;
    }})()"""


def test_secured(host: str, topology: str, admin: str, key: str) -> None:
    """The page over TLS: the cookie is bound to the host, and no change is offered where they are off."""
    der = base64.b64decode("".join(line for line in key.splitlines() if not line.startswith("-")))
    digest = base64.b64encode(hashlib.sha256(der).digest()).decode()
    browser = Browser(flags=[f"--ignore-certificate-errors-spki-list={digest}"])
    try:
        page = browser.open()
        page.look()
        page.go(f"https://{host}/ui/#/topology/{topology}")
        page.wait_for_text("Sign in", "This cluster is locked")
        check_accessible(page, "the form")
        sign_in(page, admin)
        page.wait_for_text("root", "admin", "Components", "Changes are switched off on this nimbus.")
        cookies = page.call("Network.getCookies")["cookies"]
        assert [(one["name"], one["secure"], one["httpOnly"], one["sameSite"], one["session"]) for one in cookies] == [
            ("__Host-stormkeeper-token", True, True, "Strict", True)], cookies
        page.go(f"https://{host}/ui/#/")
        page.wait_for_text("Slots in use", "127.0.0.1")
        offered = page.run("[...document.querySelectorAll('main button')].map((one) => one.textContent.trim())")
        assert not {"Drain", "Kill", "Rebalance", "Deactivate"} & set(offered), offered
        page.go(f"https://{host}/ui/#/tree/nimbuses")
        page.wait_for_text("Parent of /nimbuses/{nimbus-id}")
        refused = [one for one in page.complaints if "401" not in one and "404" not in one]
        assert not refused, refused
    finally:
        browser.close()


def sign_in(page: Page, token: str) -> None:
    field = "input[type=password]"
    page.wait_for("the form", lambda: page.run(f"Boolean(document.querySelector('{field}'))"))
    page.run(f"document.querySelector('{field}').select()")
    page.type_into(field, token)
    page.click(".sign-in button.main", "Sign in")


if __name__ == "__main__":
    tests = {"views": test_views, "away": test_away, "roles": test_roles, "empty": test_empty, "full": test_full,
             "secured": test_secured}
    tests[sys.argv[1]](*sys.argv[2:])
    print("ok")
