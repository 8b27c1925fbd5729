"""The page scores in Chromium what the device scores, from disk and without any network."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_ad_runtime import Scorer, read_frame
from tests.clients.conftest import CASES, CLIENTS, FRAMES

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: edge-ad[dev]")
NPM, CHROMIUM = shutil.which("npm"), shutil.which("chromium") or shutil.which("chromium-browser")
CLIENT = CLIENTS / "browser"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NPM is None, reason="no npm: install Node.js 20 or newer"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(
        not (CLIENT / "node_modules").is_dir(), reason="no node_modules: run `make clients`"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page as one file, moved to a folder where nothing else lies."""
    done = subprocess.run([str(NPM), "run", "build"], cwd=CLIENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = tmp_path_factory.mktemp("page") / "edge-ad.html"
    shutil.copy(CLIENT / "dist/edge-ad.html", page)
    return page.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, which may ask for nothing but itself and must not have a fault."""
    found = browser.new_page()
    faults: list[str] = []
    asked: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.extend([message.text] * (message.type == "error")))
    found.on("request", lambda request: asked.append(request.url))
    found.goto(address)
    yield found
    found.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]


def open_model(page: Any, model: Path) -> None:
    page.set_input_files("#model-input", model)
    title = page.locator("#model-drop.done strong")
    playwright.expect(title).to_have_text(model.name, timeout=60_000)
    playwright.expect(page.locator(".card")).to_have_count(0, timeout=90_000)


def test_it_gives_the_golden_scores_of_one_model_file_after_the_other(page: Any) -> None:
    for case in CASES:
        open_model(page, case.model)
        page.set_input_files("#picture-input", list(case.scores))
        page.wait_for_selector(f".card:nth-child({len(case.scores)})", timeout=60_000)
        cards = page.query_selector_all(".card")
        verdicts = [
            {
                "score": float(card.get_attribute("data-score")),
                "anomalous": card.get_attribute("data-anomalous") == "true",
            }
            for card in cards
        ]
        case.check(verdicts)
        names = [card.get_attribute("data-name") for card in cards]
        assert names == [picture.name for picture in case.scores]
        anomalous = sum(verdict["anomalous"] for verdict in verdicts)
        counted = f"{len(verdicts) - anomalous} good, {anomalous} anomalous"
        playwright.expect(page.locator("#counts")).to_have_text(counted, timeout=90_000)


def test_the_heat_lies_on_the_defect(page: Any) -> None:
    model, picture = FRAMES / "board-fusion.onnx", FRAMES / "frames/shrinks-scratch.png"
    open_model(page, model)
    page.set_input_files("#picture-input", picture)
    page.wait_for_selector(".card")
    # Opacity of the heat map in a few places, read from the canvas itself.
    alpha = "(canvas, [x, y]) => canvas.getContext('2d').getImageData(x, y, 1, 1).data[3]"
    heat = page.query_selector(".picture canvas + canvas")
    result = Scorer(model, device="cpu").score(read_frame(picture))
    (region, *_) = result.regions
    middle = [region.x + region.width // 2, region.y + region.height // 2]
    assert heat.evaluate(alpha, middle) > 50
    assert heat.evaluate(alpha, [3, 3]) == 0


def test_it_says_what_is_wrong(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    model = bytearray((FRAMES / "board-fusion.onnx").read_bytes())
    model[150_000] ^= 1
    broken.write_bytes(model)
    page.set_input_files("#model-input", broken)
    message = page.locator("#message")
    playwright.expect(message).to_have_text(re.compile("checksum"), timeout=60_000)
    assert page.is_disabled("#picture-input")
    open_model(page, FRAMES / "board-fusion.onnx")
    page.set_input_files("#picture-input", FRAMES / "golden.json")
    playwright.expect(message).to_have_text(re.compile("golden.json.*cannot read"), timeout=60_000)
