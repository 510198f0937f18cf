"""The report in a real browser, where one is installed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.pairs.verification import verify_distances
from arcface_plus.evaluation.report.page import write_report
from arcface_plus.evaluation.report.section import ReportSection

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
)
TROUBLE = {
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Log.entryAdded",
    "Network.loadingFailed",
}


class Browser:
    """Chromium, told what to do in JSON messages over a pair of pipes."""

    def __init__(self, program: str, profile: Path) -> None:
        read_orders, write_orders = os.pipe()
        read_answers, write_answers = os.pipe()
        # Chromium reads orders from descriptor 3 and answers on 4; the shell puts them there.
        command = f'exec "$0" "$@" 3<&{read_orders} 4>&{write_answers}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, program, *FLAGS.split(), f"--user-data-dir={profile}"],
            pass_fds=(read_orders, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_orders)
        os.close(write_answers)
        self.orders, self.answers = write_orders, read_answers
        self.pending, self.count, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.orders, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def receive(self) -> dict[str, Any]:
        end = time.monotonic() + 60
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.answers, 1 << 20) if ready else b""
            assert data, "the browser fell silent"
            self.pending += data
        message, self.pending = self.pending.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, page: Path, *, width: int, dark: bool) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.events = []
        self.send("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def ask(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def screenshot(self) -> np.ndarray:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return np.asarray(picture)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self.orders)
        os.close(self.answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser, none of {', '.join(CHROMIUM)} is installed")
    opened = Browser(found, tmp_path_factory.mktemp("profile"))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    is_same = np.tile(np.repeat([True, False], 50), 4)
    distances = np.where(is_same, rng.normal(1.1, 0.3, 400), rng.normal(1.8, 0.3, 400)).clip(0, 4)
    result = verify_distances(distances, is_same, 4)
    pairs = PairSet(list(rng.integers(0, 256, (800, 32, 32, 3), dtype=np.uint8)), is_same)
    long = "a_name_" * 30
    sections = [
        ReportSection(name, pairs, distances, is_same, result, {"pixels": result}, [(0, 0.5)])
        for name in ("toy", long)
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, sections, title=long, environment={long: long}, command=long)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_without_trouble(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert [event for event in browser.events if event.get("method") in TROUBLE] == []
    requests = [e["params"]["request"]["url"] for e in browser.events if "request" in e["params"]]
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    browser.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("[...document.images].every(each => each.naturalWidth > 0)")
    picture = browser.screenshot()
    assert width - 20 <= picture.shape[1] <= width, "a scroll bar may take its part"
    assert picture.std() > 5, "something is drawn"
    assert (np.median(picture) < 64) == dark
    lines = "[...document.querySelectorAll('.chart polyline.stroke')]"
    strokes = browser.ask(f"{lines}.map(each => getComputedStyle(each).stroke)")
    assert len(strokes) > 8
    assert not {"none", "rgb(0, 0, 0)"} & set(strokes), "lines have colours in either theme"


@pytest.mark.slow
def test_page_can_be_walked_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, width=1280, dark=False)
    focused = "document.activeElement.tagName + document.activeElement.className"
    seen = []
    for _ in range(40):
        for kind in ("keyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        seen.append(browser.ask(focused))
    assert seen[0] == "Askip"
    assert {"SUMMARY", "DIVscroll"} <= set(seen)
