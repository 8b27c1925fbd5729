"""A list of pictures with labels, read in batches without holding more than a few of them."""

import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edge_ad.progress import Bar
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.model.image import Frame, Preprocessing
from edge_ad_runtime.model.picture_file import list_pictures, no_pictures, other_files, read_frame

logger = logging.getLogger(__name__)

GOOD = "good"
"""The label, and the folder name, of pictures without a defect."""

_MIN_WORKERS, _MAX_WORKERS = 2, 4


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture.

    Attributes:
        path: of the picture file.
        label: `good`, or the name of the defect.
        mask_path: picture of the defective pixels; None: there is none.
    """

    path: Path = field(kw_only=False)
    label: str = GOOD
    mask_path: Path | None = None

    def __post_init__(self) -> None:
        """Take paths as texts as well."""
        object.__setattr__(self, "path", Path(self.path))
        if self.mask_path is not None:
            object.__setattr__(self, "mask_path", Path(self.mask_path))

    @property
    def anomalous(self) -> bool:
        """Whether the part is labelled as defective."""
        return self.label != GOOD


@dataclass(frozen=True)
class ScoredSample:
    """A sample and its score, in the method's unit of distance."""

    sample: Sample
    score: float


class Dataset(Sequence[Sample]):
    """Samples in a fixed order; pictures are read when a batch asks for them.

    Attributes:
        name: of the category, for messages.
        skip_bad: leave unreadable pictures out instead of raising.
        bad: pictures left out so far because they were unreadable; stays empty without `skip_bad`.
    """

    def __init__(
        self, samples: Iterable[Sample], *, name: str = "", skip_bad: bool = False
    ) -> None:
        """Take the samples over in their order."""
        self._samples = tuple(samples)
        self.name = name
        self.skip_bad = skip_bad
        self.bad: list[Path] = []

    @classmethod
    def from_folder(cls, folder: Path | str, *, skip_bad: bool = False) -> "Dataset":
        """Return all pictures below a folder, at any depth, as good ones.

        Raises:
            DataError: the folder is missing or holds no picture.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"expected a folder of pictures, {folder} is not one: check the path")
        paths = list_pictures(folder)
        others = other_files(folder)
        if not paths:
            raise no_pictures(folder)
        if others:
            logger.warning(
                "%s below %s are not read: convert pictures of another kind (such as HEIC of "
                "phones) to PNG or JPEG",
                others,
                folder,
            )
        return cls([Sample(path=path) for path in paths], name=folder.name, skip_bad=skip_bad)

    def __repr__(self) -> str:
        """Say in one row what there is."""
        counts = Counter(sample.label for sample in self._samples)
        labels = ", ".join(f"{count} {label}" for label, count in counts.most_common(8))
        more = ", ..." if len(counts) > 8 else ""
        return f"<{type(self).__name__} {self.name!r}: {labels or 'no pictures'}{more}>"

    def __len__(self) -> int:
        """Return the number of samples, unreadable ones included."""
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Sample | Dataset":
        """Return one sample, or a dataset of some."""
        if isinstance(index, slice):
            return self._part(self._samples[index])
        return self._samples[index]

    def batches(
        self,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 16,
        description: str | None = None,
    ) -> Iterator[tuple[list[Sample], NDArray[np.uint8]]]:
        """Read all pictures in order, a few ahead of the caller.

        Args:
            preprocessing: brings each frame to the model's input size.
            batch_size: samples per batch; the last one may be smaller.
            description: title of a progress bar, in a terminal or a notebook; None: no bar.

        Yields:
            The samples and their frames at input size: uint8, (n, h, w, 3), BGR.

        Raises:
            DataError: a picture is unreadable; with `skip_bad` only when all of them are.
        """
        samples: list[Sample] = []
        frames: list[Frame] = []
        n_read = 0
        for sample, frame in self._read_all(preprocessing, description, ahead=2 * batch_size):
            samples.append(sample)
            frames.append(frame)
            n_read += 1
            if len(samples) == batch_size:
                yield samples, np.stack(frames)
                samples, frames = [], []
        if samples:
            yield samples, np.stack(frames)
        if self._samples and not n_read:
            raise DataError(
                f"none of the {len(self)} pictures could be read, the first is "
                f"{self._samples[0].path}: replace them"
            )

    def read(self, sample: Sample) -> Frame | None:
        """Read one picture at full size; None: it is unreadable and left out (`skip_bad`).

        Raises:
            DataError: it is unreadable, without `skip_bad`.
        """
        try:
            return self.load(sample)
        except DataError as error:
            self._leave_out(sample, error)
            return None

    def load(self, sample: Sample) -> Frame:
        """Read one picture at full size.

        Raises:
            DataError: it is unreadable.
        """
        return read_frame(sample.path)

    def without(self, names: Sequence[str]) -> "Dataset":
        """Return the samples but for some.

        Args:
            names: paths, or their ends, such as `003.png` or `good/003.png`.

        Raises:
            ConfigError: a name that no picture has, or that several have.
        """
        excluded = {self._named(name) for name in names}
        return self._part(sample for sample in self._samples if sample.path not in excluded)

    def _named(self, name: str) -> Path:
        path = Path(name)
        exact = [one.path for one in self._samples if one.path.resolve() == path.resolve()]
        parts = path.parts
        found = exact or [
            one.path for one in self._samples if one.path.parts[-len(parts) :] == parts
        ]
        if len(found) != 1:
            other = f"{len(found)} are: give more of the path" if found else "none is: check it"
            raise ConfigError(
                f"expected one of the {len(self)} training pictures to be {name!r}, {other}"
            )
        return found[0]

    def split(self, fraction: float, seed: int) -> tuple["Dataset", "Dataset"]:
        """Draw a part at random: (rest, held-out part), both in the order of this dataset.

        Args:
            fraction: share of the held-out part, 0..1; each part gets at least one sample.
            seed: the same seed draws the same part.

        Raises:
            DataError: fewer than two samples.
        """
        if len(self) < 2:
            raise DataError(f"expected at least 2 pictures to split, got {len(self)}: add some")
        count = min(max(round(fraction * len(self)), 1), len(self) - 1)
        drawn = set(np.random.default_rng(seed).permutation(len(self))[:count].tolist())
        rest = [sample for index, sample in enumerate(self._samples) if index not in drawn]
        held_out = [sample for index, sample in enumerate(self._samples) if index in drawn]
        return self._part(rest), self._part(held_out)

    def digests(self) -> list[tuple[Path, bytes]]:
        """Read every file: its path and the SHA-256 of its content, in order.

        Raises:
            DataError: a file cannot be opened, without `skip_bad`.
        """
        digests = []
        for sample in self._samples:
            try:
                content = sample.path.read_bytes()
            except OSError as error:
                self._leave_out(
                    sample,
                    DataError(
                        f"cannot read the picture {sample.path}: {error.strerror}: "
                        "check the path and its permissions"
                    ),
                )
            else:
                digests.append((sample.path, hashlib.sha256(content).digest()))
        return digests

    def _part(self, samples: Iterable[Sample]) -> "Dataset":
        return Dataset(samples, name=self.name, skip_bad=self.skip_bad)

    def _read_all(
        self, preprocessing: Preprocessing, description: str | None, *, ahead: int
    ) -> Iterator[tuple[Sample, Frame]]:
        """Yield readable samples in order; at most `ahead` resized frames are in memory."""

        def load(sample: Sample) -> Frame:
            return preprocessing.apply(self.load(sample))

        waiting: deque[tuple[Sample, Future[Frame]]] = deque()
        todo = iter(self._samples)
        pool = ThreadPoolExecutor(_n_workers(), thread_name_prefix="read-pictures")
        bar = Bar(len(self), description, unit="picture")
        try:
            for sample in islice(todo, ahead):
                waiting.append((sample, pool.submit(load, sample)))
            while waiting:
                sample, future = waiting.popleft()
                try:
                    yield sample, future.result()
                except DataError as error:
                    self._leave_out(sample, error)
                bar.update()
                for following in islice(todo, 1):
                    waiting.append((following, pool.submit(load, following)))
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)

    def _leave_out(self, sample: Sample, error: DataError) -> None:
        """Record an unreadable picture, or raise when that is not allowed."""
        if not self.skip_bad:
            raise DataError(f"{error} (or go on without such pictures: --skip-bad)") from error
        if sample.path not in self.bad:
            self.bad.append(sample.path)
            logger.warning("left out: %s", error)


def content_hash(digests: Iterable[tuple[Path, bytes]]) -> str:
    """Return the SHA-256, in hex, of the names and contents of files; the folder is free.

    Args:
        digests: as `Dataset.digests` returns them.
    """
    total = hashlib.sha256()
    for path, digest in digests:
        # A hash of fixed length and a NUL: no two lists of files give the same bytes.
        total.update(os.fsencode(path.name) + b"\0" + digest)
    return total.hexdigest()


def _n_workers() -> int:
    """Decoding outruns the backbone with few threads; more would take its cores."""
    return min(max((os.cpu_count() or 1) // 2, _MIN_WORKERS), _MAX_WORKERS)
