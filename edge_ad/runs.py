"""A run: the folder `results/<category>/<method>/` that `edge-ad train` writes.

Besides the detector and the report it holds `metrics.json` (`RunMetrics`), `scores.csv` (the test
split), `good_scores.csv` (the fitted pictures, each scored with itself left out) and
`good_maps.safetensors` (the maps of the most unusual of them, for the report). Everything that
reads or writes these files does it here.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ad.data import GOOD, Sample, ScoredSample
from edge_ad.run_metrics import RunMetrics
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import locked, write_whole
from edge_ad_runtime.model.bench import backbone_file

METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.csv"
GOOD_MAPS_FILE = "good_maps.safetensors"
GOOD_SCORES_FILE = "good_scores.csv"
HELD_OUT_FILE = "held_out.csv"
REPORT_FILE = "report.html"
DETECTOR_FILE = "detector.json"

_OLD_COLUMNS = ("path", "label", "score", "verdict")
_SCORES_COLUMNS = (*_OLD_COLUMNS, "mask")
_GOOD_COLUMNS = ("path", "score", "map_min", "map_max", "set_aside")

LOCK_SECONDS = 60.0
"""For another process to write the same run; its report takes a few seconds."""

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class GoodPicture:
    """A good picture scored as if it were new, and the lowest and highest value of its map.

    Attributes:
        path: of the picture.
        score: in the method's unit of distance.
        map_min: lowest value of its anomaly map.
        map_max: highest value of its anomaly map.
        set_aside: it was taken for an outlier and does not count for the decision limit; it was
            fitted all the same.
    """

    path: Path
    score: float
    map_min: float
    map_max: float
    set_aside: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: its folder, and what the three files in it say.

    Attributes:
        folder: of the run.
        metrics: the figures.
        scored: the test split in its order; empty: there is none.
        good: the fitted pictures, scored with the picture itself left out of the fit.
        good_maps: of the most unusual of them, by index: distances (patches,) before smoothing,
            with the picture itself left out of the fit.
        held_out: in runs of format 1 the good pictures that gave the limit instead of `good`.
    """

    folder: Path
    metrics: RunMetrics
    scored: tuple[ScoredSample, ...] = field(default=(), repr=False)
    good: tuple[GoodPicture, ...] = field(default=(), repr=False)
    held_out: tuple[ScoredSample, ...] = field(default=(), repr=False)
    good_maps: Mapping[int, NDArray[np.float32]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def model_file(self) -> Path:
        """Where the exported file lies unless another place was asked for."""
        return model_file(self.folder)

    def write(self, folder: Path | None = None) -> None:
        """Write the files into the run's folder, or into another one first."""
        folder = folder or self.folder
        document = json.dumps(self.metrics.to_json(), indent=2, allow_nan=False)
        write_whole(folder / METRICS_FILE, document.encode())
        limit = self.metrics.threshold
        scored = [
            (
                item.sample.path.resolve(),
                item.sample.label,
                item.score,
                "anomalous" if item.score >= limit else "good",
                item.sample.mask_path.resolve() if item.sample.mask_path else "",
            )
            for item in self.scored
        ]
        good = [
            (item.path.resolve(), item.score, item.map_min, item.map_max, int(item.set_aside))
            for item in self.good
        ]
        write_whole(folder / SCORES_FILE, _csv(_SCORES_COLUMNS, scored))
        write_whole(folder / GOOD_SCORES_FILE, _csv(_GOOD_COLUMNS, good))
        import safetensors.numpy

        maps = {str(index): distance for index, distance in self.good_maps.items()}
        write_whole(folder / GOOD_MAPS_FILE, safetensors.numpy.save(maps))

    @classmethod
    def read(cls, folder: Path | str) -> "Run":
        """Read a run of this version or an earlier one.

        Raises:
            DataError: a file is missing, damaged, or of a later version.
        """
        folder = Path(folder)
        metrics = read_metrics(folder)
        old = metrics.format_version < 2
        return cls(
            folder=folder,
            metrics=metrics,
            scored=tuple(_read_rows(folder, SCORES_FILE, _OLD_COLUMNS, _scored_sample)),
            good=()
            if old
            else tuple(_read_rows(folder, GOOD_SCORES_FILE, _GOOD_COLUMNS, _good_picture)),
            held_out=tuple(_read_rows(folder, HELD_OUT_FILE, _OLD_COLUMNS, _scored_sample))
            if old
            else (),
            good_maps={} if old else _read_maps(folder),
        )


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Let no training replace the files of a run meanwhile: they are read one after the other."""
    with ExitStack() as stack:
        if folder.is_dir():
            with suppress(OSError):  # what cannot be locked can be read all the same
                lock = locked(folder.resolve(), seconds=LOCK_SECONDS, needed=False, shared=True)
                stack.enter_context(lock)
        yield


def read_metrics(folder: Path) -> RunMetrics:
    """Read the figures of a run alone.

    Raises:
        DataError: the file is missing, damaged, or of a later version.
    """
    return RunMetrics.from_json(_text(folder, METRICS_FILE), folder / METRICS_FILE)


def run_folder(results: Path, category: str, method: str) -> Path:
    """Return the folder of one run; it need not exist."""
    return results / category / method


def all_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, the newest first."""
    return [path.parent for path in _newest_first(results.glob(f"*/*/{DETECTOR_FILE}"))]


def all_models(results: Path) -> list[Path]:
    """Return the exported files of all runs below `results`, the newest first."""
    return _newest_first(
        model for run in results.glob("*/*") if run.is_dir() for model in exported(run)
    )


def exported(run: Path) -> list[Path]:
    """Return the model files in a run folder, sorted, without the bare backbones beside them."""
    files = set(run.glob("*.onnx"))
    return sorted(files - {backbone_file(model) for model in files})


def model_file(run: Path) -> Path:
    """Return where the exported file of a run lies: `<category>-<method>.onnx` inside it."""
    whole = run.absolute()  # `.` has no name of its own
    return run / f"{whole.parent.name}-{whole.name}.onnx"


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    times: dict[Path, int] = {}
    for path in paths:
        with suppress(FileNotFoundError):  # deleted or renamed meanwhile
            times[path] = path.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__, reverse=True)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    # File names need not be valid UTF-8; they come back byte by byte.
    return buffer.getvalue().encode(errors="surrogateescape")


def _text(folder: Path, name: str) -> str:
    return _bytes(folder, name).decode(errors="surrogateescape")


def _bytes(folder: Path, name: str) -> bytes:
    """Read a file of a run.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run written by `edge-ad train` in {folder}, {name} is missing: "
            "train it, or give another run"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {folder / name}: {error.strerror}") from error


def _read_rows(
    folder: Path, name: str, columns: Sequence[str], parse: Callable[[Mapping[str, str]], Row]
) -> Iterator[Row]:
    """Read the rows of a CSV file of a run.

    Raises:
        DataError: it is missing or damaged, with the number of the row.
    """
    reader = csv.DictReader(io.StringIO(_text(folder, name), newline=""))
    try:
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"the column {min(missing)} is missing")
        for row in reader:
            yield parse(row)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"row {reader.line_num} of {folder / name} is damaged ({error}): train the run again"
        ) from error


def _read_maps(folder: Path) -> dict[int, NDArray[np.float32]]:
    """Read the maps of unusual good pictures; only the report needs them.

    Raises:
        DataError: the file is missing or damaged.
    """
    # Here, so that a device, which has no safetensors, can list runs.
    import safetensors.numpy
    from safetensors import SafetensorError

    path = folder / GOOD_MAPS_FILE
    try:
        maps = safetensors.numpy.load(_bytes(folder, GOOD_MAPS_FILE))
        return {int(index): np.asarray(values, np.float32) for index, values in maps.items()}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}): train the run again") from error


def _scored_sample(row: Mapping[str, str]) -> ScoredSample:
    path, label = _path(row["path"]), row["label"]
    if not label:
        raise ValueError("the label is missing")
    if "mask" in row:
        mask = _path(row["mask"]) if row["mask"] else None
    else:
        mask = _guess_mask(path, label)
    sample = Sample(path=path, label=label, mask_path=mask)
    return ScoredSample(sample, _score(row["score"]))


def _good_picture(row: Mapping[str, str]) -> GoodPicture:
    if row["set_aside"] not in ("0", "1"):
        raise ValueError(f"expected 0 or 1 as set_aside, got {row['set_aside'][:40]!r}")
    return GoodPicture(
        path=_path(row["path"]),
        score=_score(row["score"]),
        map_min=_score(row["map_min"]),
        map_max=_score(row["map_max"]),
        set_aside=row["set_aside"] == "1",
    )


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("expected the path of a picture")
    return Path(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score < math.inf:
        raise ValueError(f"expected a finite number of 0 or more, got {text[:40]!r}")
    return score


def _guess_mask(path: Path, label: str) -> Path | None:
    """Find the mask of `test/DEFECT/NAME.png` where MVTec's layout has it (format 1)."""
    if label == GOOD or len(path.parents) < 3:
        return None
    folder = path.parents[2] / "ground_truth" / label
    masks = [folder / f"{path.stem}{ending}.png" for ending in ("_mask", "")]
    return next((mask for mask in masks if os.path.isfile(mask)), None)
