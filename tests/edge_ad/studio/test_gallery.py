"""A thousand pictures in the gallery, and faults that are told on the page."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad.project.folder import CategoryFolder
from tests.conftest import good_plate
from tests.edge_ad.studio.conftest import StudioProcess, Until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
MANY = 1000


@pytest.fixture(scope="module")
def many(studio: StudioProcess) -> CategoryFolder:
    """1,000 pictures of 640 x 480: 0.9 MB each when they are decoded."""
    folder = CategoryFolder.create("many", studio.data_root)
    rng = np.random.default_rng(0)
    plates = [cv2.resize(good_plate(rng), (640, 480)) for _ in range(20)]
    encoded = [cv2.imencode(".jpg", plate)[1].tobytes() for plate in plates]
    for number in range(MANY):
        path = folder.path / f"train/good/{number:04}.jpg"
        path.write_bytes(encoded[number % len(encoded)])
    return folder


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def test_a_thousand_pictures(
    page: Any, studio: StudioProcess, many: CategoryFolder, until: Until
) -> None:
    thumbnails = studio.data_root / ".edge-ad-studio" / "thumbnails"
    others = len(list(thumbnails.glob("*.jpg")))
    page.goto(f"{studio.url}/product/many/collect")
    button(page, "All 1000").wait_for()
    before = studio.memory
    until(lambda: len(list(thumbnails.glob("*.jpg"))) == others + MANY)
    made = {path: path.stat().st_mtime_ns for path in thumbnails.iterdir()}
    # Decoded one by one; a thumbnail is 256 pixels wide and what it looks like 4 KB.
    assert studio.memory - before < 150 * 2**20

    # The browser fetches what comes into view, not all of it.
    fetched: set[str] = set()
    page.on("request", lambda request: fetched.add(request.url))
    page.reload()
    figures = page.locator(".gallery figure")
    figures.nth(MANY - 1).wait_for(state="attached")
    page.locator("figure[data-key='train/good/0003.jpg'] img").wait_for()
    shown = [url for url in fetched if "/studio/thumbnail/" in url]
    assert 0 < len(shown) < MANY / 2
    # Keys that come faster than answers: each moves a picture of its own.
    figures.first.click()
    for _ in range(3):
        page.keyboard.press("t")
    button(page, "For testing 3").wait_for()
    assert page.get_by_role("alert").count() == 0
    page.keyboard.press("ArrowDown")
    with page.expect_request(re.compile(r"0999\.jpg")):
        figures.nth(MANY - 1).scroll_into_view_if_needed()
    # Nothing is made twice.
    assert {path: path.stat().st_mtime_ns for path in thumbnails.iterdir()} == made

    # A picture that is deleted on disk meanwhile costs a sentence, and the rest goes on.
    page.locator("figure[data-key='train/good/0005.jpg']").click()
    page.locator(".side").get_by_text("0005.jpg").wait_for()
    (many.path / "train/good/0005.jpg").unlink()
    page.keyboard.press("x")
    page.get_by_text("is no longer there: somebody has moved or deleted it").wait_for()
    button(page, "All 999").wait_for()


def test_bad_files_are_told_on_the_page(
    page: Any, studio: StudioProcess, many: CategoryFolder, tmp_path: Path
) -> None:
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04torn")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    page.goto(f"{studio.url}/product/many/collect")
    page.locator("input[type=file]").set_input_files(tmp_path / "torn.zip")
    page.get_by_text("Torn.zip is damaged or not a ZIP file: pack it again").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "phone.heic")
    page.get_by_text("Phone.heic is not a PNG, JPEG, BMP, TIFF or WebP file").wait_for()


def test_an_interrupted_training_is_told_and_starts_again(
    page: Any, studio: StudioProcess, many: CategoryFolder
) -> None:
    page.goto(f"{studio.url}/product/many/train")
    button(page, "Start the training").dblclick()
    button(page, "Stop").first.wait_for()
    job = studio.queue.jobs("many", "train")[-1]
    os.kill(job.pid, signal.SIGKILL)
    page.get_by_text("Failed: it was interrupted before it could finish").wait_for()
    assert studio.queue.jobs("many", "train")[1:] == [], "one for each click"
    assert len(many.pictures()) >= MANY - 1
    button(page, "Start again").click()
    button(page, "Stop").click()
    page.get_by_text("Stopped; nothing of it is kept").wait_for()
    studio.reach("train", "stopped")
