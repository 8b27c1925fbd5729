"""How far a model file may be from PyTorch, and how far it is."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from edge_ad_export.proof import Comparison
from edge_ad_runtime.errors import ExportError, counted
from edge_ad_runtime.model.golden import NEGLIGIBLE

MAX_DIFFERENCE = 1e-3
"""fp32: limit for scores and, relative to the map's highest value, for anomaly maps."""

MAX_TIE_DIFFERENCE = 0.1
"""fp32: limit for the maps of one picture in 50, and one more. Where two stored pictures are nearly
as far away, PyTorch and the graph may retrieve different ones."""

MAX_AUROC_LOSS = 1e-3
"""Rounded precisions: a tenth of a point, of image and of pixel AUROC."""

MAX_ROUNDED_DIFFERENCE = 0.05
"""Rounded precisions without an AUROC: limit for scores, relative to the decision limit."""


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
        n_training: training pictures among them; the others are the test split.
        score_difference: largest relative difference of a score; scores below `NEGLIGIBLE` of the
            decision limit are compared with that.
        limit_difference: the same, where scores below the decision limit are compared with that.
        map_difference: largest difference of a map value, relative to that map's maximum.
        n_apart: pictures whose map differs by more than `MAX_DIFFERENCE`.
        worst_picture: file name of the picture with the largest score difference.
        worst_scores: its score by PyTorch and by the model file.
        rank_correlation: Spearman's, of the scores; None for fewer than three pictures.
        verdict_flips: pictures with another verdict, each by its own threshold.
        n_anomalous: anomalous pictures among the test pictures.
        image_auroc: of the test pictures, by PyTorch and by the model file; None where one of both
            kinds is missing.
        pixel_auroc: likewise; None without masks.
    """

    precision: str
    n_pictures: int
    n_training: int
    score_difference: float
    limit_difference: float
    map_difference: float
    n_apart: int
    worst_picture: str
    worst_scores: tuple[float, float]
    rank_correlation: float | None
    verdict_flips: int
    n_anomalous: int
    image_auroc: tuple[float, float] | None
    pixel_auroc: tuple[float, float] | None

    @classmethod
    def of(cls, comparison: Comparison, precision: str, limits: tuple[float, float]) -> "Parity":
        """Sum up a comparison.

        Args:
            comparison: of at least one picture.
            precision: of the graph.
            limits: decision limits for PyTorch's scores and for the model file's.
        """
        expected, got = comparison.expected, comparison.got
        difference = np.abs(got - expected)
        floor = max(NEGLIGIBLE * abs(limits[0]), 1e-12)
        relative = difference / np.maximum(np.abs(expected), floor)
        to_limit = difference / np.maximum(np.abs(expected), max(abs(limits[0]), 1e-12))
        worst = int(relative.argmax())
        distinct = len(expected) > 2 and np.ptp(expected) > 0 and np.ptp(got) > 0
        ours, theirs = comparison.metrics
        return cls(
            precision=precision,
            n_pictures=len(expected),
            n_training=comparison.n_training,
            score_difference=float(relative[worst]),
            limit_difference=float(to_limit.max()),
            map_difference=float(comparison.map_differences.max()),
            n_apart=int((~(comparison.map_differences <= MAX_DIFFERENCE)).sum()),
            worst_picture=comparison.names[worst],
            worst_scores=(float(expected[worst]), float(got[worst])),
            rank_correlation=float(spearmanr(expected, got).statistic) if distinct else None,
            verdict_flips=int(((expected >= limits[0]) != (got >= limits[1])).sum()),
            n_anomalous=ours.n_anomalous,
            image_auroc=_pair(ours.image_auroc, theirs.image_auroc),
            pixel_auroc=_pair(ours.pixel_auroc, theirs.pixel_auroc),
        )

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
        # Written so that NaN fails.
        if (
            self.score_difference <= MAX_DIFFERENCE
            and self.map_difference <= MAX_TIE_DIFFERENCE
            and self.n_apart <= 1 + self.n_pictures // 50
        ):
            return None
        return (
            f"scores differ by up to {self.score_difference:.2g}, where at most {MAX_DIFFERENCE:g} "
            f"is allowed, and the maps of {self.n_apart} of "
            f"{counted(self.n_pictures, 'picture')} by more than that, up to "
            f"{self.map_difference:.2g}"
        )

    def _problem_rounded(self) -> str | None:
        if self.image_auroc is None:
            if self.limit_difference <= MAX_ROUNDED_DIFFERENCE:
                return None
            return (
                f"scores differ by {self.limit_difference:.2g} of the decision limit, "
                f"at most {MAX_ROUNDED_DIFFERENCE:g} is allowed"
            )
        # With few pictures the smallest change there is, two neighbours swapped, is already more.
        n_good = self.n_pictures - self.n_training - self.n_anomalous
        swap = 1 / (self.n_anomalous * n_good)
        limits = {"image": max(MAX_AUROC_LOSS, swap), "pixel": MAX_AUROC_LOSS}
        figures = {"image": self.image_auroc, "pixel": self.pixel_auroc}
        lost = [
            f"{name} AUROC falls from {pair[0]:.4f} to {pair[1]:.4f}, "
            f"a loss of at most {limits[name]:.4f} is allowed"
            for name, pair in figures.items()
            if pair and not pair[0] - pair[1] <= limits[name] * (1 + 1e-9)
        ]
        return ", ".join(lost) or None


def _pair(expected: float | None, got: float | None) -> tuple[float, float] | None:
    return None if expected is None or got is None else (expected, got)
