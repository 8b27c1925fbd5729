"""What all pages share: where things lie on disk, the queue of jobs, and loaded runs."""

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ad.data import list_categories
from edge_ad.project.folder import CategoryFolder
from edge_ad.project.job import Job
from edge_ad.project.queue import Queue
from edge_ad.project.thumbnails import Thumbnails, shrunk
from edge_ad.runs import Run
from edge_ad_runtime import Result, Scorer
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import make_writable, remove_leftovers
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.picture_file import read_frame

if TYPE_CHECKING:
    from edge_ad.models import Detector

HOME = ".edge-ad-studio"

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values that were asked for last; each is made once, by one thread at a time."""

    def __init__(self, most: int) -> None:
        """Keep at most so many."""
        self._most = most
        self._values: OrderedDict[object, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made if need be."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            return self._values[key]


class Trial(Protocol):
    """What a page of `Try live` shows."""

    def score(self, frame: Frame) -> Result:
        """Score one frame."""

    def picture(self) -> bytes:
        """Return the newest part as JPEG."""


class Camera(Protocol):
    """A camera whose newest frame a page shows."""

    @property
    def newest(self) -> tuple[int, Frame | None]:
        """The number of the newest frame, and the frame."""


class Studio:
    """One data root and what is done in it.

    Attributes:
        data_root: where the folders of the products lie.
        home: the Studio's own files in it, which no other command looks at.
        queue: the long work.
        thumbnails: of all pictures.
        wheels: packages for devices without internet; None: there are none here.
        sessions: trials that are under way, by id.
        cameras: cameras from which pictures are taken, by id.
        marked: pictures of the folder of marked parts that a page shows, by the page's id.
        trouble: why the queue cannot go on; empty: it can.
    """

    def __init__(self, data_root: Path, wheels: Path | None = None) -> None:
        """Take over what is there.

        Args:
            data_root: where the folders of the products lie.
            wheels: the folder that `make bundle` wrote.

        Raises:
            DataError: the data root cannot be written to.
        """
        self.data_root = data_root.absolute()
        self.home = self.data_root / HOME
        make_writable(self.home)
        self.uploads = self.home / "uploads"
        make_writable(self.uploads)
        for left in self.uploads.iterdir():  # by a Studio that was killed
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        for category in self.data_root.iterdir():  # by whoever was killed while taking pictures in
            remove_leftovers(category)
        self.queue = Queue(self.home / "jobs")
        self.thumbnails = Thumbnails(self.home / "thumbnails")
        self.wheels = wheels
        self.sessions: dict[str, Trial] = {}
        self.cameras: dict[str, Camera] = {}
        self.marked: dict[str, tuple[Path, ...]] = {}
        self.trouble = ""
        self._runs: Recent[Run] = Recent(16)
        self._detectors: Recent[Detector] = Recent(2)
        self._scorers: Recent[Scorer] = Recent(2)
        self._maps: Recent[tuple[Frame, NDArray[np.float32]]] = Recent(24)

    def categories(self) -> list[str]:
        """Return the names of the products, sorted."""
        names = list_categories(self.data_root)
        return [name for name in names if name.isprintable() and (self.data_root / name).is_dir()]

    def folder(self, category: str) -> CategoryFolder:
        """Return the folder of a product, also of one whose name `create` would not give it.

        Raises:
            DataError: there is none of this name.
        """
        if Path(category).name != category or category.startswith(".") or "\0" in category:
            raise DataError(f"expected the name of a product, got {category[:60]!r}")
        return CategoryFolder(self.data_root / category)

    def trained(self, category: str) -> list[Job]:
        """Return the trainings that are done, the newest first."""
        jobs = self.queue.jobs(category, "train")
        return [job for job in jobs if job.state == "done" and run_folder(job).is_dir()]

    def run(self, job: Job) -> Run:
        """Return the run of a training; it is read again when its limit has changed.

        Raises:
            DataError: it cannot be read.
        """
        folder = run_folder(job)
        changed_at = 0
        with suppress(OSError):
            changed_at = (folder / "metrics.json").stat().st_mtime_ns
        return self._runs.get((folder, changed_at), lambda: Run.read(folder))

    def detector(self, job: Job) -> "Detector":
        """Return the fitted detector of a training, on the CPU.

        Raises:
            DataError: it cannot be read.
        """
        folder = run_folder(job)
        from edge_ad.models import load

        return self._detectors.get(folder, lambda: load(folder, device="cpu"))

    def scorer(self, model: Path) -> Scorer:
        """Return what runs a model file.

        Raises:
            EdgeAdError: the file cannot be used.
        """
        return self._scorers.get(
            (model, model.stat().st_mtime_ns), lambda: Scorer(model, device="cpu")
        )

    def map_of(self, job: Job, picture: Path) -> tuple[Frame, NDArray[np.float32]]:
        """Return a picture, at most 900 pixels large, and its anomaly map laid over it.

        Raises:
            DataError: one of the two cannot be read.
        """

        def make() -> tuple[Frame, NDArray[np.float32]]:
            frame, detector = read_frame(picture), self.detector(job)
            (prediction,) = detector.predict([frame])
            shown = shrunk(frame, 900)
            size = (shown.shape[0], shown.shape[1])
            return shown, detector.preprocessing.map_to_frame(prediction.anomaly_map, size)

        return self._maps.get((job.id, picture), make)


def run_folder(job: Job) -> Path:
    """Return the run folder that a training writes."""
    return job.folder / job.category / str(job.about.get("method", ""))


def model_job(studio: Studio, job: Job) -> Job | None:
    """Return the newest export of a training that is done and still has its file; None: none."""
    for export in studio.queue.jobs(job.category, "export"):
        if export.about.get("training") == job.id and export.state == "done":
            with suppress(DataError):
                model_path(export)
                return export
    return None


def model_path(export: Job) -> Path:
    """Return the model file that an export wrote.

    Raises:
        DataError: it did not.
    """
    result = export.result()
    model = result.get("model") if isinstance(result, dict) else None
    if not isinstance(model, str) or not os.path.isfile(model):  # False for what is not a path, too
        raise DataError(f"{export.title} has no model file, or it was deleted: export again")
    return Path(model)
