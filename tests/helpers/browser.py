"""Headless Chromium, driven by the DevTools protocol over pipes; it reaches 127.0.0.1 only."""

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

OFFLINE = "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
OPTIONS = (
    "--headless=new", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-sync",
    "--remote-debugging-pipe", f"--host-resolver-rules={OFFLINE}", "about:blank",
)  # fmt: skip
PATIENCE = 120.0  # seconds; a machine may be busy


class Browser:
    """One page. ``requests``: the addresses that the page and its workers asked for."""

    def __init__(self, program: str, profile: Path) -> None:
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{read} 4>&{write}',
            "-",
            program,
            f"--user-data-dir={profile}",
            *OPTIONS,
        ]
        self._process = subprocess.Popen(
            command, pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._buffer = b""
        self._answers: dict[int, Any] = {}
        self._number = 0
        self.requests: list[str] = []
        self.messages: list[str] = []
        """Of the console, errors among them."""
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attach = {"targetId": target, "flatten": True}
        self._session = self.call("Target.attachToTarget", attach, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True})

    def close(self) -> None:
        self._send("Browser.close", {}, None)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, values: dict[str, Any] | None = None, session: str | None = "own") -> Any:
        number = self._send(method, values or {}, self._session if session == "own" else session)
        end = time.monotonic() + PATIENCE
        while number not in self._answers:
            self._receive(end)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which may be a promise."""
        whole = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        result = self.call("Runtime.evaluate", whole)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}; console: {self.messages[-5:]}")
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        self.call("Page.navigate", {"url": address})
        self.wait_for(f"location.href == {json.dumps(address)} && document.readyState == 'complete'")

    def choose_files(self, selector: str, paths: list[Path]) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self.call("DOM.setFileInputFiles", {"nodeId": node, "files": list(map(str, paths))})

    def drop(self, paths: list[Path]) -> None:
        """Drag files or folders from outside onto the page."""
        data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", {"type": kind, "x": 100, "y": 100, "data": data})

    def picture(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """A screenshot of the whole page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        data = self.call("Page.captureScreenshot", {"captureBeyondViewport": True})["data"]
        path.write_bytes(base64.b64decode(data))

    def _send(self, method: str, values: dict[str, Any], session: str | None) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _receive(self, end: float) -> None:
        """Take what has come; waits for something."""
        if not select.select([self._from], [], [], max(0, end - time.monotonic()))[0]:
            raise TimeoutError("the browser does not answer")
        if not (data := os.read(self._from, 1 << 16)):
            raise RuntimeError(f"the browser ended with status {self._process.wait()}")
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._notice(message["method"], message["params"])

    def _notice(self, event: str, values: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Target.attachedToTarget":  # a worker, which waits
            for method in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                self._send(method, {}, values["sessionId"])
        elif event == "Log.entryAdded":
            self.messages.append(values["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.messages.append(str(values["exceptionDetails"]))
