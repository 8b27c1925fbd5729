"""The screenshots of docs/live-page.md and docs/first-day.md: drawn flanges, seen in Chromium.

python -m docs.live_page_pictures FOLDER     # FOLDER: an empty one for pictures, the run and marks
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

from docs.studio_pictures import DOCS, flange

CAMERAS = ("left", "right", "top", "inlet", "outlet", "press")
SHOTS = (("live-page-1280", 1, 1280, 800), ("live-page-1024", 2, 1024, 768))
PARTS = 20
WAIT_MS = 120_000


def edge_ad(*arguments: str, cwd: Path) -> None:
    """Run a command to its end."""
    subprocess.run([sys.executable, "-m", "edge_ad", *arguments], cwd=cwd, check=True)


@contextmanager
def inspection(folder: Path, model: Path, cameras: tuple[str, ...], page: Any) -> Iterator[None]:
    """Stream parts at watched folders, with the live page open, until every part has come."""
    command = [sys.executable, "-m", "edge_ad", "stream", "--model", str(model), "--watch"]
    for name in cameras:
        (folder / name).mkdir(parents=True)
        command += ["--camera", f"{name}={folder / name}"]
    stream = subprocess.Popen(
        [*command, "--serve", "0", "--alarm", "3/5"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = iter(stream.stderr or ())
    address = next(row.split()[-1] for row in said if row.startswith("live page on"))
    page.goto(address)
    page.get_by_text("Waiting for the first part").first.wait_for(timeout=WAIT_MS)
    rng = np.random.default_rng(3)
    for number in range(PARTS):
        for place, name in enumerate(cameras):
            defects = {5: "scratch", 6: "missing hole", 13: "scratch", 19: "scratch"}
            defect = defects.get(number, "") if place % 3 == 0 else ""
            hidden = folder / name / ".part.png"
            cv2.imwrite(str(hidden), flange(rng, defect))
            os.replace(hidden, folder / name / f"{number:03}.png")
        page.wait_for_timeout(800)
    page.wait_for_function(
        "(count) => [...document.querySelectorAll('.frames')].every((dd) => dd.innerText == count)",
        arg=str(PARTS),
        timeout=WAIT_MS,
    )
    yield
    stream.send_signal(signal.SIGINT)
    stream.wait(60)


def shoot(page: Any, name: str, width: int, height: int) -> None:
    """Write what the browser shows as WebP."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(1500)
    screen = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    if screen is not None:
        cv2.imwrite(str(DOCS / f"{name}.webp"), screen, [cv2.IMWRITE_WEBP_QUALITY, 72])


def main(folder: Path) -> None:
    """Train on drawn flanges, and look at the page with one, two and six cameras."""
    rng = np.random.default_rng(7)
    (folder / "datasets/flange").mkdir(parents=True)
    for number in range(60):
        cv2.imwrite(str(folder / f"datasets/flange/{number:03}.png"), flange(rng))
    edge_ad("train", "padim", "--class", "flange", cwd=folder)
    edge_ad("export", cwd=folder)
    model = folder / "results/flange/padim/flange-padim.onnx"
    with sync_playwright() as tool:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        page = tool.chromium.launch(executable_path=program, args=["--no-sandbox"]).new_page(
            locale="en-GB"
        )
        for name, count, width, height in (*SHOTS, ("live-page-390", len(CAMERAS), 390, 844)):
            with inspection(folder / name, model, CAMERAS[:count], page):
                shoot(page, name, width, height)
                if count == 1:
                    page.get_by_role("button", name="Change limit").click()
                    limit = page.locator("#limit .value")
                    limit.fill(f"{1.4 * float(limit.input_value()):.4g}")
                    shoot(page, "live-page-limit", width, height)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
