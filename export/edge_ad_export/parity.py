"""Proof at export time: the model file scores real pictures as PyTorch does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edge_ad.data import Sample
from edge_ad.evaluate import Evaluator, Metrics
from edge_ad.models import Detector
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ExportError
from edge_ad_runtime.model.image import read_frame

MAX_DIFFERENCE = 1e-3
"""fp32: limit for scores and, relative to the map's highest value, for anomaly maps."""

MAX_AUROC_LOSS = 1e-3
"""Rounded precisions: a tenth of a point, of image and of pixel AUROC."""

MAX_ROUNDED_DIFFERENCE = 0.05
"""Rounded precisions without anomalous pictures: limit for scores."""

BATCH_SIZE = 8


class ProofError(ExportError):
    """A graph is too far from PyTorch.

    Attributes:
        problem: what is too far, with the figures.
    """

    def __init__(self, message: str, problem: str) -> None:
        """Take the whole message, and the part of it that says what is too far."""
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the model file is from PyTorch in float32, over `n_pictures`.

    Attributes:
        precision: of the graph: fp32, fp16 or int8.
        n_pictures: number of pictures compared.
        score_difference: largest relative difference of a score.
        map_difference: largest difference of a map value, relative to that map's maximum.
        worst_picture: file name of the picture with the largest score difference.
        worst_scores: its score by PyTorch and by the model file.
        rank_correlation: Spearman's, of the scores; None for fewer than three pictures.
        verdict_flips: pictures with another verdict, each by its own threshold.
        n_anomalous: anomalous pictures among them.
        image_auroc: by PyTorch and by the model file; None without anomalous pictures.
        pixel_auroc: likewise; None without masks.
    """

    precision: str
    n_pictures: int
    score_difference: float
    map_difference: float
    worst_picture: str
    worst_scores: tuple[float, float]
    rank_correlation: float | None
    verdict_flips: int
    n_anomalous: int
    image_auroc: tuple[float, float] | None
    pixel_auroc: tuple[float, float] | None

    def check(self, *, exact: bool) -> None:
        """Refuse a file that is too far away.

        Args:
            exact: the graph is to give PyTorch's numbers, and not just its order.

        Raises:
            ProofError: with the figures.
        """
        problem = self._problem_exact() if exact else self._problem_rounded()
        if problem:
            raise ProofError(
                f"the exported graph does not score as PyTorch does: {self.worst_picture} got "
                f"{self.worst_scores[0]:.6g} from PyTorch and {self.worst_scores[1]:.6g} from the "
                f"graph ({problem}); nothing was replaced: --force writes it all the same"
                + ("" if exact else ", --precision fp32 without --bake-resize is exact"),
                problem,
            )

    def _problem_exact(self) -> str | None:
        if max(self.score_difference, self.map_difference) <= MAX_DIFFERENCE:
            return None
        return (
            f"scores differ by {self.score_difference:.2g}, maps by {self.map_difference:.2g}, "
            f"at most {MAX_DIFFERENCE:g} is allowed"
        )

    def _problem_rounded(self) -> str | None:
        if self.image_auroc is None:
            if self.score_difference <= MAX_ROUNDED_DIFFERENCE:
                return None
            return (
                f"scores differ by {self.score_difference:.2g}, "
                f"at most {MAX_ROUNDED_DIFFERENCE:g} is allowed"
            )
        # With few pictures the smallest change there is, two neighbours swapped, is already more.
        swap = 1 / (self.n_anomalous * (self.n_pictures - self.n_anomalous))
        limits = {"image": max(MAX_AUROC_LOSS, swap), "pixel": MAX_AUROC_LOSS}
        figures = {"image": self.image_auroc, "pixel": self.pixel_auroc}
        lost = [
            f"{name} AUROC falls from {100 * pair[0]:.2f} to {100 * pair[1]:.2f}, "
            f"at most {100 * limits[name]:.2f} points are allowed"
            for name, pair in figures.items()
            if pair and not pair[0] - pair[1] <= limits[name] * (1 + 1e-9)
        ]
        return ", ".join(lost) or None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is compared: the graph's precision, and the thresholds of PyTorch and of the graph."""

    precision: str
    thresholds: tuple[float, float]


def compare(
    detector: Detector, scorer: Scorer, samples: Sequence[Sample], setting: Setting
) -> Parity:
    """Score the samples with both and return the differences.

    Raises:
        DataError: a picture cannot be read.
    """
    ours, theirs = Evaluator(), Evaluator()
    map_difference = 0.0
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        frames = [read_frame(sample.path) for sample in batch]
        pairs = zip(batch, detector.predict(frames), scorer.score_batch(frames), strict=True)
        for sample, expected, got in pairs:
            for evaluator, one in ((ours, expected), (theirs, got)):
                evaluator.add(sample, one.score, one.anomaly_map, detector.preprocessing)
            difference = _relative(expected.anomaly_map, got.anomaly_map)
            map_difference = max(map_difference, difference)
    return _parity(ours, theirs, map_difference, setting)


def _parity(ours: Evaluator, theirs: Evaluator, map_difference: float, setting: Setting) -> Parity:
    before_limit, after_limit = setting.thresholds
    expected, got = ours.result(), theirs.result()
    before = np.array([item.score for item in expected.samples])
    after = np.array([item.score for item in got.samples])
    relative = np.abs(after - before) / np.maximum(np.abs(before), 1e-12)
    worst = int(relative.argmax())
    distinct = len(before) > 2 and np.ptp(before) > 0 and np.ptp(after) > 0
    return Parity(
        precision=setting.precision,
        n_pictures=len(before),
        score_difference=float(relative[worst]),
        map_difference=map_difference,
        worst_picture=expected.samples[worst].sample.path.name,
        worst_scores=(float(before[worst]), float(after[worst])),
        rank_correlation=float(spearmanr(before, after).statistic) if distinct else None,
        verdict_flips=int(((before >= before_limit) != (after >= after_limit)).sum()),
        n_anomalous=expected.metrics.n_anomalous,
        image_auroc=_pair(expected.metrics, got.metrics, "image_auroc"),
        pixel_auroc=_pair(expected.metrics, got.metrics, "pixel_auroc"),
    )


def _pair(expected: Metrics, got: Metrics, name: str) -> tuple[float, float] | None:
    before, after = getattr(expected, name), getattr(got, name)
    return None if before is None or after is None else (before, after)


def _relative(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    scale = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(got - expected).max()) / scale
