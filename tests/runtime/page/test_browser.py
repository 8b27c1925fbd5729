"""The page in a real browser: what is painted, not what is meant."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_ad_runtime import CapturedFrame, FrameSource, Result
from edge_ad_runtime.cameras.folder import WatchedFolder
from edge_ad_runtime.events import Event
from edge_ad_runtime.stream import build
from edge_ad_runtime.stream.config import ServeConfig, parse_config
from edge_ad_runtime.stream.stream import Stream

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page.server import PageServer  # noqa: E402  (behind the skips)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PARTS = 100
GALLERY = "[...document.querySelectorAll('#gallery img')].map((image) => image.getAttribute('src'))"
BITS = 8
HEIGHT, WIDTH = 240, 320

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
Wait = Callable[..., None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that must not have a fault of its own, such as one against its policy."""
    found = browser.new_page(viewport={"width": 1280, "height": 1100})
    found.set_default_timeout(90_000)
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.extend([message.text] * (message.type == "error")))
    yield found
    found.close()
    assert [fault for fault in faults if "ERR_" not in fault and "404" not in fault] == []


def numbered(number: int) -> NDArray[np.uint8]:
    """A part that carries its number in its pixels; odd ones are bright, and so anomalous."""
    frame = np.full((HEIGHT, WIDTH, 3), (160 if number % 2 else 10) + number // 2, np.uint8)
    for bit in range(BITS):
        left, right = bit * WIDTH // BITS, (bit + 1) * WIDTH // BITS
        one = bool(number >> bit & 1)
        # The code and its complement: the mean does not depend on the number.
        frame[:60, left:right], frame[60:120, left:right] = 255 * one, 255 * (not one)
    return frame


def number_in(picture: NDArray[np.uint8]) -> int:
    """Read the number back from a picture of any size; -1: it is not one of the numbered parts."""
    height, width = picture.shape[:2]
    grey = picture.mean(axis=2)
    columns = [round((bit + 0.5) * width / BITS) for bit in range(BITS)]
    code = [grey[round(height / 8), column] for column in columns]
    complement = [grey[round(3 * height / 8), column] for column in columns]
    if not all(abs(one - other) > 90 for one, other in zip(code, complement, strict=True)):
        return -1
    pairs = enumerate(zip(code, complement, strict=True))
    return sum((one > other) << bit for bit, (one, other) in pairs)


class Line:
    """Parts that are dropped one by one into a folder that is watched, and their verdicts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scores: dict[int, float] = {}

    def drop(self, number: int) -> None:
        cv2.imwrite(str(self.folder / ".new.png"), numbered(number))
        os.replace(self.folder / ".new.png", self.folder / f"{number:03}.png")

    def write(self, captured: CapturedFrame, result: Result) -> None:
        assert captured.path is not None
        self.scores[int(captured.path.stem)] = result.score

    def event(self, event: Event) -> None:
        pass


@pytest.fixture
def watched(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Line, PageServer]]:
    folder = tmp_path / "parts"
    folder.mkdir()

    def open_folder(spec: str, *_: Any, **__: Any) -> FrameSource:
        return WatchedFolder(folder, every=0.02)

    monkeypatch.setattr(build, "open_source", open_folder)
    document = {
        "model": str(model),
        "threads": 1,
        "camera": [{"name": "left", "source": str(folder), "watch": True}],
    }
    with Stream(parse_config(document)) as stream:
        line = Line(folder)
        stream.delivery.add(line)
        server, stop = PageServer(stream, ServeConfig(port=0)), threading.Event()
        running = threading.Thread(target=stream.run, args=(stop,))
        running.start()
        yield line, server
        stop.set()
        server.close()
        running.join(60)


class Painted:
    """What the browser has painted of the only card, in one screenshot."""

    def __init__(self, page: Any) -> None:
        while True:
            boxes = self._boxes(page)
            data = np.frombuffer(page.screenshot(), np.uint8)
            if boxes == self._boxes(page):
                break  # else a warning has come above the pictures meanwhile, and moved them
        screen = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert screen is not None
        self._screen = np.asarray(screen, np.uint8)
        self.numbers = {number_in(self._cut(box)) for box in boxes[1:] if box}
        assert -1 not in self.numbers, "no numbered part stands where the page has a picture"
        _, green, red = (int(value) for value in self._cut(boxes[0])[-5, 5])
        self.verdict = "bad" if red > 2 * green else "good" if green > 2 * red else "none"

    def _boxes(self, page: Any) -> Any:
        """Where the verdict and both pictures are."""
        return page.evaluate(
            """() => ["header.verdict", "img.plain", "figure + figure img.plain"].map(
                (name) => document.querySelector(`article ${name}`)?.getBoundingClientRect())"""
        )

    def _cut(self, box: dict[str, float]) -> NDArray[np.uint8]:
        x, y = round(box["x"]), round(box["y"])
        return self._screen[y : y + round(box["height"]), x : x + round(box["width"])]


def test_every_part_is_painted_with_its_own_verdict(
    page: Any, watched: tuple[Line, PageServer], wait: Wait
) -> None:
    line, server = watched
    page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
    page.get_by_text("Waiting for the first part").wait_for()
    # Without the colours of the heat map, the number can be read from both pictures.
    page.locator("#heat").fill("0")
    for number in range(PARTS):
        line.drop(number)
        deadline = time.monotonic() + 60
        painted = Painted(page)
        while painted.numbers != {number}:
            # Whatever is painted meanwhile is one part with one verdict.
            if painted.numbers:
                (shown,) = painted.numbers
                assert painted.verdict == ("bad" if shown % 2 else "good")
            assert time.monotonic() < deadline, f"part {number} was never shown"
            painted = Painted(page)
        assert painted.verdict == ("bad" if number % 2 else "good")
        name, word, score, *_ = page.locator("article .verdict").inner_text().split()
        assert (name, word) == ("left", "ANOMALOUS" if number % 2 else "GOOD")
        assert float(score) == pytest.approx(line.scores[number], abs=0.06)
        outline = page.locator("article figure + figure path").last.get_attribute("d")
        assert bool(outline) == bool(number % 2)
    wait(lambda: page.locator(".frames").inner_text() == str(PARTS))


def test_a_page_opened_after_the_last_part_shows_it(
    page: Any, watched: tuple[Line, PageServer], wait: Wait
) -> None:
    line, server = watched
    for number in (4, 7):
        line.drop(number)
        wait(lambda: number in line.scores)  # noqa: B023  (called before the next one)
    page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
    page.locator("article[data-verdict=bad]").wait_for()
    page.locator("#heat").fill("0")
    wait(lambda: Painted(page).numbers == {7})
    assert Painted(page).verdict == "bad"


def test_from_the_first_look_to_a_new_limit(
    page: Any, server: PageServer, stream: Stream, wait: Wait, tmp_path: Path
) -> None:
    page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
    page.locator("article >> nth=1").wait_for()
    page.locator("#gallery button >> nth=3").wait_for()
    page.locator("#events li").first.wait_for()
    assert page.locator("#health").inner_text() == "2 cameras deliver"
    assert page.locator("article .name").all_inner_texts() == ["left", "right"]

    # Behind a press, with a preview, and for one camera only.
    left = page.locator("article").first
    left.get_by_role("button", name="Change limit").click()
    page.get_by_label("New limit").first.fill("10")
    page.get_by_text("parts would be stopped").wait_for()
    assert stream.info_of("left").threshold == 60
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Set the limit to 10.00").click()
    wait(lambda: stream.info_of("left").threshold == 10)
    assert stream.info_of("right").threshold == 60
    page.locator("article:first-child[data-verdict=bad]").wait_for()
    page.locator("#events li", has_text="threshold changed").get_by_text("Ada").wait_for()
    left.get_by_text("limit set by Ada").wait_for()
    left.get_by_role("button", name="Change limit").click()
    assert page.get_by_label("Your name").input_value() == "Ada"
    page.get_by_role("button", name="Reset to its own").click()
    wait(lambda: stream.info_of("left").threshold == 60)

    # The list holds still under a pointer; a part opens large, and can be marked.
    page.locator("#gallery button").first.hover()
    held = page.locator("#gallery img").first.get_attribute("src")
    page.wait_for_timeout(1200)
    assert page.locator("#gallery img").first.get_attribute("src") == held
    page.locator("#gallery button").first.click()
    page.locator("#part .frame").first.wait_for()
    page.get_by_role("button", name="This was a false alarm").last.click()
    page.get_by_text("Saved as").wait_for()
    assert len(list((tmp_path / "marks" / "plate" / "train" / "good").glob("*.png"))) == 1
    page.get_by_role("button", name="Take it back").click()
    page.get_by_text("Taken back.", exact=True).wait_for()
    assert list((tmp_path / "marks").rglob("*.png")) == []
    # From one part to the next, for fingers that no bar of the chart is wide enough for; also when
    # newer parts have taken the place of the one that is shown.
    page.mouse.move(0, 0)
    wait(lambda: held not in page.evaluate(GALLERY), seconds=60)  # behind 24 others

    def opened() -> list[str]:
        # Both cameras may have the same frame and place at the same second.
        return list(page.locator("#part .name, #part .facts").all_inner_texts())

    shown = opened()
    page.get_by_role("button", name="Earlier").press("Enter")
    wait(lambda: opened() != shown)
    page.get_by_role("button", name="Later").press("Enter")
    wait(lambda: opened() == shown)
    page.keyboard.press("Escape")

    page.on("dialog", lambda dialog: dialog.accept())
    counted = int(left.locator(".frames").inner_text())
    left.get_by_role("button", name="New shift").click()
    wait(lambda: int(left.locator(".frames").inner_text()) < counted)

    stream.delivery.event(Event(kind="camera lost", message="unplugged", camera="left"))
    page.locator("article:first-child[data-verdict=lost]").wait_for()
    assert page.locator("#health").inner_text() == "1 camera lost"
    assert "CAMERA LOST" in left.locator(".verdict").inner_text()
    stream.delivery.event(Event(kind="scene changed", message="all is new", camera="right"))
    page.locator("article .warning", has_text="all is new").wait_for()
    page.get_by_role("button", name="Dismiss").click()
    wait(lambda: page.locator(".warning").count() == 0)

    server.close()
    page.get_by_text("No connection to the device: what you see is old.").wait_for()


def test_a_hidden_page_is_no_viewer(page: Any, server: PageServer, wait: Wait) -> None:
    page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
    page.locator("article[data-part]").first.wait_for()
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    shown = ""

    def is_still() -> bool:
        nonlocal shown
        shown = page.locator("article").first.get_attribute("data-part")
        page.wait_for_timeout(800)
        return bool(page.locator("article").first.get_attribute("data-part") == shown)

    wait(is_still)  # what had been asked for before still comes
    page.evaluate(
        """() => {
            delete document.hidden;
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    wait(lambda: page.locator("article").first.get_attribute("data-part") != shown)


@pytest.mark.parametrize("size", [(1280, 800), (1024, 768), (390, 844)])
def test_nothing_sticks_out_and_every_button_can_be_hit(
    browser: Any, server: PageServer, size: tuple[int, int]
) -> None:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(90_000)
    page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
    page.locator("article[data-part] >> nth=1").wait_for()
    page.locator("#gallery button").first.wait_for()
    wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    for button in page.locator("button:visible:not(.look)").all():
        box = button.bounding_box()
        assert box is None or min(box["width"], box["height"]) >= 44, button
    # However many cameras there are, each verdict stands beside the whole name of its camera.
    page.locator("article .word").first.evaluate("(word) => (word.textContent = 'ANOMALOUS')")
    for cameras in ("1", "2", "many"):
        page.evaluate("(count) => (document.body.dataset.cameras = count)", cameras)
        name = page.locator("article .name").first
        assert name.evaluate("(name) => name.scrollWidth <= name.clientWidth"), cameras
    page.close()
