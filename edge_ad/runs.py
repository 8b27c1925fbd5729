"""A run: the folder `results/<category>/<method>/` that `edge-ad train` writes.

Besides the detector and the report it holds `metrics.json` (`RunMetrics`), `scores.csv` (the test
split) and `good_scores.csv` (the good pictures that gave the decision limit). Everything that
reads or writes these files does it here.
"""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edge_ad.data import GOOD, Sample, ScoredSample
from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.info import MAX_SIDE, Limits

FORMAT_VERSION = 2
"""Version of the three files; 1 had `held_out.csv` and no masks in `scores.csv`."""

METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.csv"
GOOD_SCORES_FILE = "good_scores.csv"
HELD_OUT_FILE = "held_out.csv"
REPORT_FILE = "report.html"
DETECTOR_FILE = "detector.json"

_OLD_COLUMNS = ("path", "label", "score", "verdict")
_SCORES_COLUMNS = (*_OLD_COLUMNS, "mask")
_GOOD_COLUMNS = ("path", "score", "map_min", "map_max", "set_aside")

TEST_SHARES = (
    "image_auroc",
    "image_ap",
    "image_f1",
    "pixel_auroc",
    "pixel_pro",
    "test_false_alarm_rate",
    "test_miss_rate",
)
"""Figures of the test split that are shares or areas, 0..1."""

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class RunMetrics(Limits):
    """The content of `metrics.json`; a test figure is None where it is not defined.

    Attributes:
        method: name of the detector, such as `padim`.
        category: the product that the pictures show.
        backbone: name of the feature network.
        layers: names of its feature maps.
        input_size: (height, width) in pixels of what the backbone sees.
        seed: of everything that was drawn.
        device: where it was computed, in PyTorch's words.
        n_train: good pictures that were fitted.
        n_skipped: unreadable pictures that were left out.
        content_hash: SHA-256, in hex, over the training pictures.
        fit_seconds: duration of the fit.
        image_auroc: area under the ROC curve of the scores, 0..1.
        image_ap: average precision, 0..1.
        image_f1: highest F1 that any threshold reaches, 0..1.
        pixel_auroc: area under the ROC curve of all pixels, 0..1.
        pixel_pro: area under the per-region overlap, 0..1.
        test_false_alarm_rate: share of the good test pictures at or above the threshold, 0..1.
        test_miss_rate: share of the defective test pictures below it, 0..1.
        n_test_good: good test pictures.
        n_test_anomalous: defective test pictures.
        versions: of the packages that were used.
        calibration: scores of good parts and the promise that follows; None in old runs.
        format_version: of the files.
    """

    method: str
    category: str
    backbone: str
    layers: tuple[str, ...] = ()
    input_size: tuple[int, int]
    seed: int
    device: str = ""
    n_train: int
    n_skipped: int
    content_hash: str
    fit_seconds: float
    image_auroc: float | None = None
    image_ap: float | None = None
    image_f1: float | None = None
    pixel_auroc: float | None = None
    pixel_pro: float | None = None
    test_false_alarm_rate: float | None = None
    test_miss_rate: float | None = None
    n_test_good: int = 0
    n_test_anomalous: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the document of `metrics.json`."""
        document = asdict(self)
        document["calibration"] = self.calibration.to_json() if self.calibration else None
        return document

    def test_figures(self) -> dict[str, float | int | None]:
        """Return what is known of the test split, by name."""
        names = (*TEST_SHARES, "n_test_good", "n_test_anomalous")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, text: str, path: Path) -> "RunMetrics":
        """Read a document that this version or an earlier one wrote; `path` is for messages.

        Raises:
            DataError: a value is missing, of the wrong type or out of its range, or a later
                version wrote the file.
        """
        try:
            document = Document.parse(text)
            version = document.count("format_version", 2**31) or 1
            if version <= FORMAT_VERSION:
                return cls._read(document, version)
        except (ValueError, RecursionError, ModelFileError) as error:
            raise DataError(f"{path} is damaged ({error}): train the run again") from error
        raise DataError(
            f"{path} has format {version}, this edge-ad reads up to {FORMAT_VERSION}: update it"
        )

    @classmethod
    def _read(cls, document: Document, version: int) -> "RunMetrics":
        calibration = document.table("calibration")
        texts = ("method", "category", "backbone", "threshold_rule", "content_hash")
        counts = ("seed", "n_train", "n_skipped", "n_test_good", "n_test_anomalous")
        values: dict[str, Any] = {name: document.text(name) for name in texts}
        values |= {name: document.whole(name) for name in counts}
        values |= {name: document.share(name) for name in TEST_SHARES}
        return cls(
            **values,
            layers=document.texts("layers"),
            input_size=document.size("input_size", MAX_SIDE),
            device=document.text("device", ""),
            threshold=document.number("threshold"),
            false_alarm_rate=document.number("false_alarm_rate", 0, 1),
            score_range=document.interval("score_range"),
            map_range=document.interval("map_range"),
            map_threshold=document.number("map_threshold"),
            fit_seconds=document.number("fit_seconds", 0),
            versions={str(name): str(text) for name, text in document.table("versions").items()},
            calibration=Calibration.from_json(calibration) if calibration else None,
            format_version=version,
        )


@dataclass(frozen=True, kw_only=True)
class GoodPicture:
    """A good picture scored as if it were new, and the lowest and highest value of its map.

    Attributes:
        path: of the picture.
        score: in the method's unit of distance.
        map_min: lowest value of its anomaly map.
        map_max: highest value of its anomaly map.
        set_aside: it was taken for an outlier and does not count for the decision limit.
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
        held_out: in runs of format 1 the good pictures that gave the limit instead of `good`.
    """

    folder: Path
    metrics: RunMetrics
    scored: tuple[ScoredSample, ...] = ()
    good: tuple[GoodPicture, ...] = ()
    held_out: tuple[ScoredSample, ...] = ()

    @property
    def model_file(self) -> Path:
        """Where the exported file lies unless another place was asked for."""
        return model_file(self.folder)

    def write(self, folder: Path | None = None) -> None:
        """Write the three files into the run's folder, or into another one first."""
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

    @classmethod
    def read(cls, folder: Path | str) -> "Run":
        """Read a run of this version or an earlier one.

        Raises:
            DataError: a file is missing, damaged, or of a later version.
        """
        folder = Path(folder)
        metrics = RunMetrics.from_json(_text(folder, METRICS_FILE), folder / METRICS_FILE)
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
        )


def run_folder(results: Path, category: str, method: str) -> Path:
    """Return the folder of one run; it need not exist."""
    return results / category / method


def all_runs(results: Path) -> list[Path]:
    """Return the folders of all runs below `results`, the newest first."""
    return [path.parent for path in _newest_first(results.glob(f"*/*/{DETECTOR_FILE}"))]


def all_models(results: Path) -> list[Path]:
    """Return the exported files of all runs below `results`, the newest first."""
    return _newest_first(results.glob("*/*/*.onnx"))


def model_file(run: Path) -> Path:
    """Return where the exported file of a run lies: `<category>-<method>.onnx` inside it."""
    whole = run.absolute()  # `.` has no name of its own
    return run / f"{whole.parent.name}-{whole.name}.onnx"


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    # File names need not be valid UTF-8; they come back byte by byte.
    return buffer.getvalue().encode(errors="surrogateescape")


def _text(folder: Path, name: str) -> str:
    """Read a file of a run.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        return (folder / name).read_bytes().decode(errors="surrogateescape")
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
