"""A headless Chromium, driven by its DevTools protocol over a pipe: no port, no driver, no library.

Source: https://chromedevtools.github.io/devtools-protocol/ (1.3) and Chromium's switch
--remote-debugging-pipe: messages are JSON, each ended by a NUL, on file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
_ANSWER_SECONDS = 120
_SWITCHES = (
    "--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
    # Tests run as root, where its own sandbox does not start.
    "--no-sandbox",
)  # fmt: skip


class BrowserError(Exception):
    """The browser did not do what was asked."""


class Browser:
    """One tab. ``requests``: addresses that it asked for; ``complaints``: errors and dialogs."""

    def __init__(self, to: int, back: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        self._to, self._back = to, back
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False

    def attach(self) -> None:
        """Open the tab, and listen to all that it says."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log", "DOM", "Accessibility"):
            self.call(f"{part}.enable")

    def open(self, url: str) -> None:
        """Show a page, and wait until it is loaded."""
        self.requests.clear()
        self.complaints.clear()
        self.dialogs.clear()
        self._loaded = False
        self.call("Page.navigate", url=url)
        self._until(lambda: self._loaded, f"{url} is not loaded")

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """The size of the window, and what the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise BrowserError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression is true."""
        self._until(lambda: bool(self.run(script)), f"never true: {script}")

    def press(self, key: str, code: int) -> None:
        """Press a key; ``code``: its virtual key code."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        known = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": code}
        kind = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, **known, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {**{name: size[name] for name in ("x", "y", "width")}, "scale": 1,
                "height": min(size["height"], 8000)}  # fmt: skip
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser, and wait for its answer."""
        number = self._send(method, params)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            found = self._read(deadline)
            if found.get("id") == number:
                if "error" in found:
                    raise BrowserError(f"{method}: {found['error']['message']}")
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def _send(self, method: str, params: dict[str, Any]) -> int:
        """Returns the number that its answer has."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _until(self, is_true: Any, otherwise: str) -> None:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not is_true():
            if time.monotonic() > deadline:
                raise BrowserError(otherwise)
            self.call("Runtime.evaluate", expression="0")
            time.sleep(0.05)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._back], [], [], left)[0]:
                raise BrowserError("the browser does not answer")
            part = os.read(self._back, 1 << 20)
            if not part:
                raise BrowserError("the browser ended")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])
            # An open one stops everything else.
            self._send("Page.handleJavaScriptDialog", {"accept": False})


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own below ``folder``, until the block ends."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise BrowserError("no Chromium is installed. Next: `make setup`, as root on Debian")
    their_in, ours_to = os.pipe()
    ours_back, their_out = os.pipe()
    # Descriptors 3 and 4 are those that it reads and writes; sh knows ours only below 10.
    moved = ["bash", "-c", f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}']
    command = [*moved, program, *_SWITCHES, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    with (
        (folder / "browser.log").open("wb") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=(their_in, their_out), env={**os.environ, "HOME": str(folder)},
        ) as running,
    ):  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        try:
            found = Browser(ours_to, ours_back)
            found.attach()
            yield found
        finally:
            # It ends, with all its processes, when nobody holds the other end.
            os.close(ours_to)
            os.close(ours_back)
            _end(running)


def _end(running: subprocess.Popen[bytes]) -> None:
    try:
        running.wait(timeout=120)
    except subprocess.TimeoutExpired:
        running.kill()
