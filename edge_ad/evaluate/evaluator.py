"""Image and pixel metrics of a test split, one sample at a time."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from edge_ad.data import Sample, ScoredSample
from edge_ad.evaluate.pixel_counts import PixelCounts
from edge_ad_runtime.errors import ConfigError, EdgeAdError
from edge_ad_runtime.model.image import Preprocessing
from edge_ad_runtime.model.picture_file import read_mask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Figures of a test split, each 0..1, larger is better; None where it is not defined.

    Attributes:
        image_auroc: area under the ROC curve of the scores.
        image_ap: average precision of the scores, defective pictures being the positives.
        image_f1: highest F1 that any threshold reaches.
        pixel_auroc: area under the ROC curve of all pixels of all maps.
        pixel_pro: area under the per-region overlap up to 30 % false positives, divided by 0.3.
        n_good: number of good pictures.
        n_anomalous: number of defective pictures.
    """

    image_auroc: float | None
    image_ap: float | None
    image_f1: float | None
    pixel_auroc: float | None
    pixel_pro: float | None
    n_good: int
    n_anomalous: int


@dataclass(frozen=True)
class Evaluation:
    """All samples with their scores, in the order they came, and the metrics over them."""

    samples: list[ScoredSample] = field(repr=False)
    metrics: Metrics


class Evaluator:
    """Collects scores and counts pixels; anomaly maps are not kept."""

    def __init__(self) -> None:
        """Start without samples."""
        self._scored: list[ScoredSample] = []
        self._pixels = PixelCounts()
        self._n_masks = 0
        self._unmasked: list[Sample] = []

    def add(
        self,
        sample: Sample,
        score: float,
        anomaly_map: NDArray[np.float32],
        preprocessing: Preprocessing,
    ) -> None:
        """Take one prediction in.

        Args:
            sample: what was scored.
            score: finite and >= 0.
            anomaly_map: (h, w) at the model's input size, finite and >= 0.
            preprocessing: how the frame became the input; the mask goes the same way.

        Raises:
            EdgeAdError: a score or map that is negative, infinite or not a number.
            DataError: the sample's mask cannot be read.
        """
        low, high = float(anomaly_map.min()), float(anomaly_map.max())
        if not (score >= 0 and low >= 0 and math.isfinite(score) and math.isfinite(high)):
            raise EdgeAdError(
                f"expected a score and an anomaly map of finite numbers >= 0 for {sample.path}, "
                f"got score {score:g} and map {low:g}..{high:g}: "
                "fit the detector again, in fp32 and with a larger epsilon"
            )
        self._scored.append(ScoredSample(sample, float(score)))
        if sample.mask_path is not None:
            mask = preprocessing.apply_mask(read_mask(sample.mask_path))
            self._n_masks += 1
        elif sample.anomalous:
            # Nobody knows which of its pixels are defective: it does not count.
            self._unmasked.append(sample)
            return
        else:
            mask = np.zeros(anomaly_map.shape, dtype=np.bool_)
        self._pixels.add(anomaly_map, mask)

    def result(self) -> Evaluation:
        """Return scores and metrics of what came so far.

        A defective picture without a mask does not count for the pixel metrics, which is logged.
        """
        labels = [item.sample.anomalous for item in self._scored]
        auroc, precision, best_f1 = _image_metrics(labels, [item.score for item in self._scored])
        self._tell_unmasked()
        metrics = Metrics(
            image_auroc=auroc,
            image_ap=precision,
            image_f1=best_f1,
            pixel_auroc=self._pixels.auroc(),
            pixel_pro=self._pixels.pro(),
            n_good=len(labels) - sum(labels),
            n_anomalous=sum(labels),
        )
        return Evaluation(list(self._scored), metrics)

    def _tell_unmasked(self) -> None:
        if self._unmasked and self._n_masks:
            logger.warning(
                "no mask for %d of %d defective pictures, such as %s: they do not count for the "
                "pixel metrics",
                len(self._unmasked),
                len(self._unmasked) + self._n_masks,
                self._unmasked[0].path,
            )
        elif self._unmasked:
            logger.info("no masks of the defective pictures: image metrics only")


def best_f1_threshold(scored: Sequence[ScoredSample]) -> float:
    """Return the score from which calling pictures anomalous has the highest F1.

    Raises:
        ConfigError: there are not both good and defective pictures.
    """
    labels = [item.sample.anomalous for item in scored]
    if all(labels) or not any(labels):
        raise ConfigError(
            "expected good and defective test pictures for --threshold-from f1, got only one kind: "
            "leave the option out, the limit then comes from the good pictures"
        )
    precision, recall, thresholds = precision_recall_curve(labels, [item.score for item in scored])
    return float(thresholds[np.argmax(_f1(precision, recall)[:-1])])


def _image_metrics(
    labels: list[bool], scores: list[float]
) -> tuple[float | None, float | None, float | None]:
    """Return ROC-AUC, average precision and the best F1; None where only one class is there."""
    if all(labels) or not any(labels):
        return None, None, None
    precision, recall, _ = precision_recall_curve(labels, scores)
    return (
        float(roc_auc_score(labels, scores)),
        # The sum of its steps may exceed 1 in the last digit.
        min(float(average_precision_score(labels, scores)), 1.0),
        float(_f1(precision, recall).max()),
    )


def _f1(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    # Where both are 0 so is F1; the small denominator only avoids 0 / 0.
    return np.asarray(2 * precision * recall / np.maximum(precision + recall, 1e-12))
