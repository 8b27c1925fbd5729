"""A Studio as a process of its own, and a browser to look at it."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from edge_ad.project.job import Job
from edge_ad.project.queue import Queue
from tests.conftest import REAL_PICTURES, good_plate, write_picture

pytest.importorskip("nicegui", reason="no nicegui: pip install 'edge-ad[studio]'")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[3]


class StudioProcess:
    """`edge-ad studio` on a free port.

    Attributes:
        url: where it answers.
        data_root: of the products.
    """

    def __init__(self, data_root: Path, folder: Path) -> None:
        """Start it in a folder of its own, in which it must leave nothing."""
        self.data_root, self._folder, self._port = data_root, folder, 0
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self, *options: str, **environment: str) -> None:
        """Start it; after `stop` under the same address again."""
        code = (
            f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'export')!r}, "
            f"{str(ROOT / 'runtime')!r}]; from edge_ad.cli import main; main()"
        )
        command = [sys.executable, "-c", code, "studio", "--port", str(self._port)]
        command += ["--data-root", str(self.data_root), *options]
        import os

        paths = os.pathsep.join(map(str, (ROOT, ROOT / "export", ROOT / "runtime")))
        self.process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"the Studio did not start: {line}"
        self.url = found[0]
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def memory(self) -> int:
        """Bytes that the process holds."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def queue(self) -> Queue:
        return Queue(self.data_root / ".edge-ad-studio" / "jobs")

    def reach(self, kind: str, state: str) -> Job:
        """Wait until the newest job of a kind stands so."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            jobs = self.queue.jobs(kind=kind)
            if jobs and jobs[0].state == state:
                return jobs[0]
            time.sleep(0.05)
        raise AssertionError([(job.state, job.message, job.log()) for job in jobs])


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    folder = tmp_path_factory.mktemp("studio")
    process = StudioProcess(folder / "data", folder / "cwd")
    yield process
    process.stop()
    for job in process.queue.jobs():
        process.queue.stop(job.id)
    assert list((folder / "cwd").iterdir()) == []


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser whose camera is Chromium's fake device."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield found
        found.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that must have no fault of its own, and fetch nothing from elsewhere."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.grant_permissions(["camera"])
    found = context.new_page()
    found.set_default_timeout(90_000)
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.extend([message.text] * (message.type == "error")))
    elsewhere: list[str] = []
    found.on(
        "request",
        lambda request: elsewhere.extend(
            [request.url] * (not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", request.url))
        ),
    )
    yield found
    context.close()
    assert elsewhere == []
    # A server that is stopped on purpose, or a request that is refused, is no fault of the page.
    assert [one for one in faults if "ERR_" not in one and "status of 4" not in one] == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in MVTec layout: aliens where there are real pictures, else synthetic plates."""
    folder = tmp_path_factory.mktemp("pictures") / "parts"
    real = REAL_PICTURES / "alien"
    if real.is_dir():
        for place, count in (("train/good", 16), ("test/good", 5), ("test/anomaly", 6)):
            (folder / place).mkdir(parents=True)
            for path in sorted((real / place).iterdir())[:count]:
                shutil.copy(path, folder / place)
        return folder
    rng = np.random.default_rng(3)
    for place, count in (("train/good", 16), ("test/good", 5), ("test/anomaly", 6)):
        for number in range(count):
            plate = good_plate(rng)
            if place == "test/anomaly":
                plate[20:40, 30:50] = (250, 30, 220)
            write_picture(folder / place / f"{number}.png", plate)
    return folder


@pytest.fixture(scope="session")
def video(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of the test pictures."""
    path = tmp_path_factory.mktemp("video") / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for picture in sorted((pictures / "test").rglob("*.*")):
        frame = cv2.imread(str(picture))
        assert frame is not None
        writer.write(cv2.resize(frame, (320, 240)))
    writer.release()
    return path


Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def until() -> Until:
    """Wait until something holds."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.03)

    return wait
