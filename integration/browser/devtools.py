"""A headless Chromium, driven by the DevTools protocol with the standard library alone."""

import base64
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse
from typing import Any, Callable, Dict, List, Optional, Sequence

START_SECONDS = 30
END_SECONDS = 5
ANSWER_SECONDS = 30
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    # Nothing but loopback is reached, whatever the browser would like to look up.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--remote-debugging-port=0",
]


class WebSocket:
    """Client of RFC 6455, for text messages of a server that is trusted."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname and parts.port, url
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        answer, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert answer.startswith(b"HTTP/1.1 101"), answer

    def _fill(self) -> None:
        chunk = self.socket.recv(1 << 16)
        if not chunk:
            raise ConnectionError("the browser has closed the connection")
        self.buffer += chunk

    def _take(self, n: int) -> bytes:
        while len(self.buffer) < n:
            self._fill()
        taken, self.buffer = self.buffer[:n], self.buffer[n:]
        return taken

    def send(self, text: str) -> None:
        self._frame(0x1, text.encode())

    def _frame(self, opcode: int, data: bytes) -> None:
        if len(data) < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(data))
        elif len(data) < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(data))
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(data))
        # A mask of zeros is a mask: it is for proxies between the two, and there are none.
        self.socket.sendall(head + bytes(4) + data)

    def receive(self, seconds: float) -> Optional[str]:
        """Returns the next message, or nothing if none came in time."""
        message = b""
        while True:
            self.socket.settimeout(max(0.001, seconds))
            try:
                if len(self.buffer) < 2:
                    self._fill()
            except (TimeoutError, socket.timeout):
                return None
            self.socket.settimeout(ANSWER_SECONDS)
            first, second = self._take(2)
            length = second & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._take(8))
            data = self._take(length)
            if first & 0xF == 0x9:
                self._frame(0xA, data)
                continue
            message += data
            if first & 0x80:
                return message.decode()


def die_with_parent() -> None:
    """Lets the kernel kill this process when its parent is killed, which then closes nothing itself."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


# What Chromium says of a page that it leaves while it evaluates something in it.
NAVIGATED = ("navigated or closed", "context was destroyed", "Cannot find context")


class Navigated(RuntimeError):
    """The page went away during a call, as it does when a link to another origin is followed."""


class Browser:
    """A Chromium with a profile of its own, which ends with this object."""

    def __init__(self, chromium: str = "", flags: Sequence[str] = ()) -> None:
        program = chromium or os.environ.get("CHROMIUM") or shutil.which("chromium")
        assert program, "there is no chromium in PATH"
        self.profile = tempfile.mkdtemp(prefix="stormkeeper-browser-")
        self.process = subprocess.Popen(
            [program, *FLAGS, *flags, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        try:
            self.socket = WebSocket(self._address())
        except BaseException:
            self.close()
            raise
        self.number = 0
        self.pages: Dict[str, "Page"] = {}

    def _address(self) -> str:
        path = os.path.join(self.profile, "DevToolsActivePort")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with open(path, encoding="utf-8") as file:
                    port, target = file.read().split("\n")[:2]
                return f"ws://127.0.0.1:{int(port)}{target}"
            except (OSError, ValueError):
                assert self.process.poll() is None, f"chromium ended with {self.process.returncode}"
                time.sleep(0.05)
        raise TimeoutError("chromium did not start")

    def call(self, method: str, params: Optional[Dict[str, Any]] = None, session: str = "") -> Dict[str, Any]:
        self.number += 1
        number = self.number
        message: Dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        self.socket.send(json.dumps(message))
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            answer = self.pump(deadline - time.monotonic())
            if answer and answer.get("id") == number:
                said = answer.get("error", {}).get("message", "")
                if any(text in said for text in NAVIGATED):
                    raise Navigated(f"{method}: {answer['error']}")
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
        raise TimeoutError(f"{method} was not answered")

    def post(self, method: str, params: Dict[str, Any], session: str) -> None:
        """Sends a message whose answer nobody waits for."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params, "sessionId": session}))

    def pump(self, seconds: float) -> Optional[Dict[str, Any]]:
        """Reads one message; events go to their page."""
        text = self.socket.receive(seconds)
        if text is None:
            return None
        message: Dict[str, Any] = json.loads(text)
        page = self.pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.event(message["method"], message["params"])
        return message

    def open(self) -> "Page":
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        self.pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # Processes of the browser may write for a moment after its first one has ended.
        deadline = time.monotonic() + END_SECONDS
        while os.path.exists(self.profile) and time.monotonic() < deadline:
            shutil.rmtree(self.profile, ignore_errors=True)
            time.sleep(0.05)


class Page:
    """A tab in a context of its own, without the cookies of others."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session
        self.complaints: List[str] = []
        self.requested: List[str] = []
        self.simulated: Dict[str, Any] = {}

    def simulate(self, path: str, answer: Any) -> None:
        """Answers requests to a path with this JSON, in the place of the nimbus."""
        self.simulated[path] = answer
        patterns = [{"urlPattern": f"*{path}*", "requestStage": "Request"} for path in self.simulated]
        self.call("Fetch.enable", {"patterns": patterns})

    def call(self, method: str, params: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        return self.browser.call(method, params, self.session)

    def event(self, method: str, params: Dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            what = details.get("exception", {}).get("description", details["text"])
            self.complaints.append(f"exception: {what}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            texts = [str(one.get("value", one.get("description"))) for one in params["args"]]
            self.complaints.append(f"console: {' '.join(texts)}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.complaints.append(f"log: {entry['text']} {entry.get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Fetch.requestPaused":
            self._answer(params)

    def _answer(self, params: Dict[str, Any]) -> None:
        path = urllib.parse.urlsplit(params["request"]["url"]).path
        if path not in self.simulated:
            self.browser.post("Fetch.continueRequest", {"requestId": params["requestId"]}, self.session)
            return
        answer = {
            "requestId": params["requestId"],
            "responseCode": 200,
            "responseHeaders": [{"name": "content-type", "value": "application/json"}],
            "body": base64.b64encode(json.dumps(self.simulated[path]).encode()).decode(),
        }
        self.browser.post("Fetch.fulfillRequest", answer, self.session)

    def look(self, width: int = 1280, height: int = 800, is_dark: bool = False, is_phone: bool = False) -> None:
        """Sets size and colours, before a page is loaded or while it is."""
        scale = 2 if is_phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def go(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})

    def run(self, script: str) -> Any:
        """Returns the value of an expression, which may be a promise."""
        params = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", params)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, what: str, condition: Callable[[], Any], seconds: float = 20) -> Any:
        """Waits until a condition holds, and returns its value."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                value = condition()
            except Navigated:
                # The page leaves for another: it is asked again when that is there.
                value = None
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}; the page shows:\n{self.text()[:3000]}")
            self.browser.pump(0.1)

    def wait_for_text(self, *texts: str, seconds: float = 20) -> None:
        def missing() -> List[str]:
            shown = self.text()
            return [text for text in texts if text not in shown]

        self.wait_for(f"the texts {texts}", lambda: not missing(), seconds)

    def click(self, selector: str, text: str = "") -> None:
        """Clicks the first element with a selector and a text, once it is there."""
        find = (
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            f".find((one) => one.textContent.includes({json.dumps(text)}))"
        )
        self.wait_for(f"{selector} {text!r}", lambda: self.run(f"Boolean({find})"))
        self.run(f"{find}.click()")

    def type_into(self, selector: str, text: str) -> None:
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(selector, lambda: self.run(f"Boolean({element})"))
        self.run(f"{element}.focus()")
        self.call("Input.insertText", {"text": text})

    def picture(self, path: str, is_whole: bool = False) -> None:
        params: Dict[str, Any] = {"format": "png", "captureBeyondViewport": is_whole}
        data = self.call("Page.captureScreenshot", params)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
