"""A Chromium without a window, driven through its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT = 60.0  # seconds; what is waited for here takes one

# The protocol needs the pipes as file descriptors 3 and 4.
_EXEC = """
import os, sys
high = [os.dup(int(one)) for one in sys.argv[1:3]]
high = [os.dup2(one, 50 + place) for place, one in enumerate(high)]
for place, one in enumerate(high):
    os.dup2(one, 3 + place, inheritable=True)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --disable-extensions "
    "--disable-background-networking --remote-debugging-pipe"
).split()
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, "")}


class Browser:
    """A page in a browser.

    Attributes:
        faults: errors of scripts, of files and of the page's policy, and what the console said.
    """

    def __init__(self, write: int, read: int) -> None:
        self.faults: list[str] = []
        self._write, self._read = write, read
        self._last, self._rest, self._session, self._downloaded = 0, b"", "", False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> Any:
        """Send a command, and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            found = self._receive()
            if found.get("id") == self._last:
                assert "error" not in found, (method, found)
                return found["result"]

    def _receive(self) -> Any:
        until = time.monotonic() + LIMIT
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found = json.loads(message)
        if found.get("method") == "Browser.downloadProgress":
            self._downloaded = found["params"]["state"] == "completed"
        if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            entry = found["params"].get("entry", {})
            if entry.get("source") != "network" or "/page/" in entry.get("url", ""):  # codes of answers are no faults
                self.faults.append(json.dumps(found["params"]))
        return found

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, (expression, found)
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        came = self.evaluate(
            f"""new Promise((done) => {{
                const until = performance.now() + {1000 * LIMIT / 2};
                const look = () => {{
                    if ({condition}) done(true);
                    else if (performance.now() > until) done(false);
                    else setTimeout(look, 20);
                }};
                look();
            }})"""
        )
        assert came, (condition, self.evaluate("document.body.innerText"), self.faults)

    def open(self, address: str) -> None:
        """Go to an address, and wait until its page is loaded."""
        self.call("Page.navigate", url=address)
        self.wait(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    def click(self, selector: str) -> None:
        """Click on an element with the mouse."""
        x, y = self.evaluate(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{block: 'center'}});
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, selector: str, text: str) -> None:
        """Put a text into a field in place of its content."""
        self.evaluate(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.focus(); one.select(); }})()"
        )
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def download(self, selector: str, folder: Path) -> bytes:
        """Click on an element that downloads a file into a folder, and return the file's content."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        self._downloaded = False
        self.click(selector)
        while not self._downloaded:
            self._receive()
        (file,) = folder.iterdir()
        return file.read_bytes()

    def look(self, width: int, dark: bool = False) -> None:
        """Set the width of the window and the colours that the user wants."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in a folder; it ends with the block."""
    assert PROGRAM is not None
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    command = [sys.executable, "-c", _EXEC, str(to_read), str(to_write), PROGRAM]
    process = subprocess.Popen(
        [*command, *_OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(write, read)
    finally:
        os.close(write)  # the browser ends when its pipe does
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(read)
