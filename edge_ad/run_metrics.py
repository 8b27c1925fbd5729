"""The figures of a run: `metrics.json`, and what a decision limit does to the test split."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge_ad.config import TURNS
from edge_ad.data import ScoredSample
from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.info import MAX_SIDE, Limits

FORMAT_VERSION = 2
"""Version of the run's files; 1 had `held_out.csv` and no masks in `scores.csv`."""

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

F1_RULE = "highest F1 on the labelled test pictures, which may be too good to be true"


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
        turns: directions in which each of them was learnt.
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
        trained_at: ISO 8601, UTC; empty in old runs.
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
    turns: int = 1
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
    trained_at: str = ""
    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the document of `metrics.json`."""
        document = asdict(self)
        document["calibration"] = self.calibration.to_json() if self.calibration else None
        return document

    def with_limit(
        self,
        calibration: Calibration,
        scored: Iterable[ScoredSample],
        threshold: float | None = None,
    ) -> "RunMetrics":
        """Return the figures with another promise, and what that does to the test split.

        Args:
            calibration: the scores of good parts, with the promised rate.
            scored: the test split.
            threshold: a limit that was found otherwise; None: that of the calibration.
        """
        changed = self.promised_by(calibration)
        if threshold is not None:
            rule = f"{F1_RULE}; {changed.threshold_rule}"
            changed = replace(changed, threshold=threshold, threshold_rule=rule)
        false_alarm_rate, miss_rate = decision_rates(scored, changed.threshold)
        return replace(
            changed,
            calibration=calibration,
            test_false_alarm_rate=false_alarm_rate,
            test_miss_rate=miss_rate,
            format_version=FORMAT_VERSION,
        )

    @property
    def limits(self) -> Limits:
        """The decision limits alone."""
        return Limits(**{entry.name: getattr(self, entry.name) for entry in fields(Limits)})

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
            f"{path} has format {version}, but this edge-ad reads up to {FORMAT_VERSION}: update it"
        )

    @classmethod
    def _read(cls, document: Document, version: int) -> "RunMetrics":
        calibration = document.table("calibration")
        texts = ("method", "category", "backbone", "content_hash")
        counts = ("seed", "n_train", "n_skipped", "n_test_good", "n_test_anomalous")
        values = Limits.entries(document)
        values |= {name: document.text(name) for name in texts}
        values |= {name: document.whole(name) for name in counts}
        values |= {name: document.share(name) for name in TEST_SHARES}
        return cls(
            **values,
            layers=document.texts("layers"),
            turns=document.count("turns", max(TURNS)) or 1,
            input_size=document.size("input_size", MAX_SIDE),
            device=document.text("device", ""),
            fit_seconds=document.number("fit_seconds", 0),
            versions={str(name): str(text) for name, text in document.table("versions").items()},
            calibration=Calibration.from_json(calibration) if calibration else None,
            trained_at=document.text("trained_at", ""),
            format_version=version,
        )


def decision_rates(
    samples: Iterable[ScoredSample], threshold: float
) -> tuple[float | None, float | None]:
    """Return (false-alarm rate, miss rate), each 0..1, where `score >= threshold` is anomalous.

    The first is a share of the good samples, the second of the defective ones; None: there are
    none of them.
    """
    alarms: list[bool] = []
    misses: list[bool] = []
    for item in samples:
        if item.sample.anomalous:
            misses.append(item.score < threshold)
        else:
            alarms.append(item.score >= threshold)
    return _share(alarms), _share(misses)


def _share(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
