"""A headless Chromium, driven through a pipe: what a page does when it is really opened.

    python tests/core/browser.py PAGE.html FOLDER

writes pictures of the page into FOLDER, at the widths of a phone and of a desk, light and dark.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PHONE, TABLET, DESK = (390, 844), (768, 1024), (1440, 900)


def find_browser() -> str | None:
    """The program, if there is one on this machine."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser of its own; use it in a `with` block."""

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(prefix="browser_")
        commands, answers = os.pipe(), os.pipe()
        self._process = subprocess.Popen(
            [str(find_browser()), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
            + ["--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", "about:blank"],
            preexec_fn=lambda: self._take_pipes(commands[0], answers[1]),
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(answers[1])
        self._out, self._in = os.fdopen(commands[1], "wb", 0), os.fdopen(answers[0], "rb")
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        self._attach()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()
        shutil.rmtree(self._profile.name, ignore_errors=True)

    @staticmethod
    def _take_pipes(commands: int, answers: int) -> None:
        """In the child: the browser reads from 3 and writes to 4."""
        high = os.dup(commands), os.dup(answers)
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    def _attach(self) -> None:
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Do a command of the DevTools protocol; AssertionError with the answer of the browser."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._out.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.events.append(message)

    def wait_for(self, event: str) -> None:
        """Until an event comes that did not come yet."""
        while (message := self._receive()).get("method") != event:
            self.events.append(message)

    def open(self, page: Path, size: tuple[int, int] = DESK, dark: bool = False) -> None:
        """Load a page at a width and height, and drop the events of an earlier one."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size[0] < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.send("Page.navigate", url=page.resolve().as_uri())
        if not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.wait_for("Page.loadEventFired")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"Enter": "\r"}.get(key, "")
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}
        facts = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **facts)
        self.send("Input.dispatchKeyEvent", type="keyUp", **facts)

    def complaints(self) -> list[str]:
        """Errors, warnings and words on the console since the page was opened."""
        methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e.get("method") in methods]

    def requests(self) -> list[str]:
        """Addresses that were requested since the page was opened, but for data within it."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def picture(self, path: Path, whole: bool = True) -> None:
        """Save a PNG of the whole page, or of what is to be seen of it."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            shot = self.send(
                "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
            )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _receive(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        return json.loads(data)


def main() -> None:
    page, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for name, size in (("phone", PHONE), ("desk", DESK)):
            for scheme in ("light", "dark"):
                browser.open(page, size, scheme == "dark")
                browser.picture(folder / f"{name}_{scheme}.png")
                print(name, scheme, browser.requests(), browser.complaints())
        browser.run("document.querySelector('button.frame').click()")
        browser.picture(folder / "enlarged.png", whole=False)


if __name__ == "__main__":
    main()
