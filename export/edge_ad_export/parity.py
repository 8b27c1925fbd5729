"""Proof at export time: the model file scores real pictures as PyTorch does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ad.models import Detector
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ExportError
from edge_ad_runtime.image import read_frame

MAX_RELATIVE_DIFFERENCE = 1e-3
"""Limit for scores and, relative to the map's highest value, for anomaly maps."""

BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the model file is from PyTorch, over `n_pictures`.

    Attributes:
        n_pictures: number of pictures compared.
        score_difference: largest relative difference of a score.
        map_difference: largest difference of a map value, relative to that map's maximum.
        worst_picture: file name of the picture with the largest score difference.
        worst_scores: its score by PyTorch and by the model file.
    """

    n_pictures: int
    score_difference: float
    map_difference: float
    worst_picture: str
    worst_scores: tuple[float, float]

    def check(self) -> None:
        """Refuse a file that is too far away.

        Raises:
            ExportError: with both figures.
        """
        if not max(self.score_difference, self.map_difference) <= MAX_RELATIVE_DIFFERENCE:
            raise ExportError(
                f"the exported graph does not score as PyTorch does: {self.worst_picture} got "
                f"{self.worst_scores[0]:.6g} from PyTorch and {self.worst_scores[1]:.6g} from the "
                f"graph (scores differ by {self.score_difference:.2g}, maps by "
                f"{self.map_difference:.2g}, at most {MAX_RELATIVE_DIFFERENCE:g} is allowed); "
                "nothing was replaced, please report it with the versions of torch and onnxruntime"
            )


def compare(detector: Detector, scorer: Scorer, pictures: Sequence[Path]) -> Parity:
    """Score the pictures with both and return the differences.

    Raises:
        DataError: a picture cannot be read.
    """
    ours: list[float] = []
    theirs: list[float] = []
    map_difference = 0.0
    for start in range(0, len(pictures), BATCH_SIZE):
        frames = [read_frame(path) for path in pictures[start : start + BATCH_SIZE]]
        expected, got = detector.predict(frames), scorer.score_batch(frames)
        for prediction, result in zip(expected, got, strict=True):
            ours.append(prediction.score)
            theirs.append(result.score)
            difference = _relative(prediction.anomaly_map, result.anomaly_map)
            map_difference = max(map_difference, difference)
    relative = np.abs(np.subtract(theirs, ours)) / np.maximum(np.abs(ours), 1e-12)
    worst = int(relative.argmax())
    return Parity(
        n_pictures=len(pictures),
        score_difference=float(relative[worst]),
        map_difference=map_difference,
        worst_picture=pictures[worst].name,
        worst_scores=(ours[worst], theirs[worst]),
    )


def _relative(expected: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    scale = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(got - expected).max()) / scale
