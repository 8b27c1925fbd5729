"""The screenshots of docs/studio.md: synthetic flanges, played through in Chromium.

python docs/studio_pictures.py FOLDER     # FOLDER: an empty one for pictures, trainings and models
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1280, 800
WAIT_MS = 300_000

Frame = NDArray[np.uint8]


def flange(rng: np.random.Generator, defect: str = "") -> Frame:
    """Draw a turned flange with four holes on a grey table: uint8, 300 x 400 x 3, BGR."""
    frame = np.full((300, 400, 3), (86, 82, 78), np.float32)
    frame += rng.normal(0, 3, (300, 400, 1))
    x, y = 200 + int(rng.integers(-22, 23)), 150 + int(rng.integers(-20, 21))
    rows, columns = np.mgrid[:300, :400]
    radius = np.hypot(rows - y, columns - x)
    turned = 158 + 9 * np.sin(radius * 1.9) + 14 * np.cos(2 * np.arctan2(rows - y, columns - x))
    body = (radius < 122) & (radius > 40)
    frame[body] = (turned[body] + rng.normal(0, 2, body.sum()))[:, None]
    frame[np.abs(radius - 122) < 1.6] = 55
    frame[np.abs(radius - 40) < 1.6] = 55
    angle = float(rng.uniform(-0.6, 0.6))
    for number in range(4):
        if defect == "missing hole" and number == 1:
            continue
        turn = angle + np.pi / 4 + number * np.pi / 2
        hole = (round(x + 82 * np.cos(turn)), round(y + 82 * np.sin(turn)))
        cv2.circle(frame, hole, 15, (60, 58, 55), -1, cv2.LINE_AA)
        cv2.circle(frame, hole, 15, (40, 40, 40), 2, cv2.LINE_AA)
    if defect == "scratch":
        turn, start = rng.uniform(0, 2 * np.pi), rng.uniform(52, 60)
        ends = [(x + r * np.cos(turn), y + r * np.sin(turn + 0.15)) for r in (start, start + 42)]
        first, last = ((round(u), round(v)) for u, v in ends)
        cv2.line(frame, first, last, (232, 232, 232), 2, cv2.LINE_AA)
    return np.clip(cv2.GaussianBlur(frame, (0, 0), 0.8), 0, 255).astype(np.uint8)


def write_pictures(folder: Path) -> None:
    """Write good and defective flanges in MVTec layout, and a folder of parts as they pass."""
    rng = np.random.default_rng(7)
    wanted = (("train/good", 60, ""), ("test/good", 20, ""))
    defects = (("test/scratch", 12, "scratch"), ("test/missing hole", 8, "missing hole"))
    for place, count, defect in (*wanted, *defects):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / place / f"{number:03}.png"), flange(rng, defect))
    # One picture twice, and one out of focus: what Collect flags.
    good = folder / "train" / "good"
    shutil.copy(good / "004.png", good / "005.png")
    soft = cv2.GaussianBlur(flange(rng), (0, 0), 5)
    cv2.imwrite(str(good / "011.png"), soft)
    (folder.parent / "line").mkdir()
    for number in range(18):
        part = flange(rng, "scratch" if number % 9 == 8 else "")
        cv2.imwrite(str(folder.parent / "line" / f"{number:03}.png"), part)


def scratch_of(path: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return both ends of the scratch in a picture: x and y as shares of width and height."""
    frame = np.asarray(cv2.imread(str(path)), np.uint8)
    rows, columns = np.nonzero(frame.min(axis=2) > 195)  # nothing else on a flange is so bright
    along = rows if np.ptp(rows) > np.ptp(columns) else columns
    first, last = (
        (columns[at] / frame.shape[1], rows[at] / frame.shape[0])
        for at in (np.argmin(along), np.argmax(along))
    )
    return first, last


def shoot(page: Any, name: str) -> None:
    """Write what the browser shows as WebP."""
    page.wait_for_timeout(1200)
    screen = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    if screen is not None:
        path = DOCS / f"studio-{name}.webp"
        cv2.imwrite(str(path), screen, [cv2.IMWRITE_WEBP_QUALITY, 72])


def play(page: Any, url: str, folder: Path) -> None:
    """Play the seven steps."""

    def press(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).click()

    page.set_default_timeout(WAIT_MS)
    page.goto(url)
    page.get_by_label("Name of a new product").fill("flange")
    press("Create")
    page.get_by_role("tab", name="Folder").click()
    page.get_by_label("Folder or ZIP on this machine").fill(str(folder / "pictures"))
    press("Copy the pictures")
    page.get_by_role("button", name=re.compile("Flagged [1-9]")).wait_for()
    page.locator("figure[data-key='train/good/011.png']").click()
    page.get_by_text("100 pictures taken in").wait_for(state="hidden")
    shoot(page, "collect")
    page.keyboard.press("x")
    page.get_by_role("button", name="Left out 1").wait_for()

    page.get_by_role("button", name="Defective 20").click()
    page.locator("figure[data-key='test/scratch/000.png']").click()
    press("Draw a mask (M)")
    press("Brush")
    page.wait_for_function(  # the picture is there, and the dialog has come to rest
        "() => document.querySelector('.q-dialog img')?.naturalWidth > 0"
        " && document.getAnimations().length === 0"
    )
    box = page.locator(".q-dialog img").bounding_box()
    (x, y), (u, v) = scratch_of(folder / "pictures/test/scratch/000.png")
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"], steps=6)
    page.mouse.up()
    shoot(page, "mask")
    press("Cancel")

    page.goto(f"{url}/product/flange/look")
    press("Compare the good pictures")
    page.get_by_text("the least usual one first").wait_for()
    shoot(page, "look")

    page.goto(f"{url}/product/flange/train")
    page.get_by_text(re.compile("Here: about")).nth(1).wait_for()
    press("Start the training")
    page.get_by_text(re.compile("[0-9] of [0-9]+")).first.wait_for()
    shoot(page, "train")
    press("Judge")

    page.get_by_text("Use this limit").wait_for()
    for _ in range(4):
        page.locator(".q-slider__track-container").first.press("ArrowLeft")
    shoot(page, "judge")
    page.locator(".strip figure.is-defect").first.click()
    page.get_by_text("Range of the colours").wait_for()
    page.wait_for_timeout(3000)
    shoot(page, "heat-map")

    page.goto(f"{url}/product/flange/deploy")
    press("Export")
    page.get_by_text("Largest difference of a score").wait_for()
    shoot(page, "deploy")

    page.goto(f"{url}/product/flange/live")
    page.get_by_label("Camera, URL, video or folder").fill(str(folder / "line"))
    press("Start")
    page.get_by_text("The source has ended.").wait_for()
    shoot(page, "live")

    marks = folder / "edge-ad-marks" / "flange"
    for place, sources in (("train/good", "good"), ("test/missed", "scratch")):
        (marks / place).mkdir(parents=True)
        for path in sorted((folder / "pictures" / "test" / sources).iterdir())[-2:]:
            shutil.copy(path, marks / place / f"{int(time.time())}-line1-{path.stem}.png")
    page.goto(f"{url}/product/flange/learn")
    page.get_by_label("Folder of marked parts").fill(str(folder / "edge-ad-marks"))
    press("Show them")
    press("Confirm all")
    page.get_by_text("4 pictures joined the data.").wait_for()
    press("Train again")
    page.get_by_text("On all pictures known so far").wait_for()
    shoot(page, "learn")


def main() -> None:
    """Write the pictures, start the Studio, and take the screenshots."""
    folder = Path(sys.argv[1]).absolute()
    write_pictures(folder / "pictures")
    command = ["edge-ad", "studio", "--port", "0", "--data-root", str(folder / "data")]
    found = shutil.which("chromium")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as studio:
        line = studio.stdout.readline() if studio.stdout else ""
        address = re.search(r"http://\S+", line)
        try:
            with sync_playwright() as tool:
                browser = tool.chromium.launch(executable_path=found, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
                play(page, address[0] if address else "", folder)
                browser.close()
        finally:
            studio.terminate()


if __name__ == "__main__":
    main()
