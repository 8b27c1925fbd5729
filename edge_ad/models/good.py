"""What the pictures of a fit score when each is left out of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad_runtime.model.calibration import Calibration, Method, calibrate

FEWEST = 3
"""Pictures in a fit from which one can be left out."""

MAPS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Distances of each fitted picture to what was learnt from the others.

    Attributes:
        distance: (n, patches), float32, before smoothing, in the order of the fit.
        score: (n,), of the pictures; None: the highest value of the smoothed map.
        method: `loo`, or `cross-fit` where a fifth of the pictures was left out at a time.
    """

    distance: Tensor
    score: Tensor | None = None
    method: Method = "loo"


@dataclass(frozen=True, kw_only=True)
class GoodScores:
    """Scores and map ranges of the fitted pictures, each scored as if it were new.

    Attributes:
        scores: (n,), float32, in the order of the fit.
        map_minima: (n,), lowest value of each anomaly map.
        map_maxima: (n,), highest value of each anomaly map.
        method: see `LeftOut`.
    """

    scores: NDArray[np.float32]
    map_minima: NDArray[np.float32]
    map_maxima: NDArray[np.float32]
    method: Method

    @classmethod
    def from_left_out(cls, left_out: LeftOut, smooth: Callable[[Tensor], Tensor]) -> "GoodScores":
        """Smooth distances (n, patches) to maps (n, h, w) with `smooth`, a few at a time."""
        minima, maxima = [], []
        for distance in torch.split(left_out.distance, MAPS_AT_ONCE):
            anomaly_map = smooth(distance)
            minima.append(anomaly_map.amin(dim=(1, 2)))
            maxima.append(anomaly_map.amax(dim=(1, 2)))
        highest = torch.cat(maxima).cpu().numpy()
        score = left_out.score
        return cls(
            scores=highest if score is None else score.cpu().numpy(),
            map_minima=torch.cat(minima).cpu().numpy(),
            map_maxima=highest,
            method=left_out.method,
        )

    def calibrate(self, rate: float | None = None) -> Calibration:
        """Set the decision limit at a false-alarm rate; None: 1 %, or 1/(n+1) for few pictures.

        Raises:
            DataError: scores that are not finite.
            ConfigError: the rate cannot be promised.
        """
        return calibrate(self.scores, self.map_maxima, rate=rate, method=self.method)
