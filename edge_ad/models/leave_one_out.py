"""What the pictures of a fit score when each is left out of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad_runtime.model.calibration import Calibration, calibrate
from edge_ad_runtime.model.info import Limits
from edge_ad_runtime.model.score_distribution import set_aside

FEWEST = 3
"""Pictures in a fit from which one can be left out."""

MAPS_AT_ONCE = 16

UNUSUAL_SHARE = 0.1
"""The share of the pictures, those with the highest scores, that people should look at again.

Of 5 % planted defects a list of 5 % held 94 % (bottle) and 58 % (elpv-mono, many of whose defects
are mild), one of 10 % held 72 % there and one of 20 % 84 % (benchmarks/limit.md).
"""

MOST_UNUSUAL = 24
"""Maps that are kept at most."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Distances of each fitted picture to what was learnt from the others.

    Attributes:
        distance: (n, patches), float32, before smoothing, in the order of the fit.
        score: (n,), of the pictures; None: the highest value of the smoothed map.
    """

    distance: Tensor
    score: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class GoodScores:
    """Scores and map ranges of the fitted pictures, each scored as if it were new.

    Attributes:
        scores: (n,), float32, in the order of the fit.
        map_minima: (n,), lowest value of each anomaly map.
        map_maxima: (n,), highest value of each anomaly map.
        highest: distances (patches,) of the pictures with the highest scores, by their index.
    """

    scores: NDArray[np.float32]
    map_minima: NDArray[np.float32]
    map_maxima: NDArray[np.float32]
    highest: Mapping[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_left_out(cls, left_out: LeftOut, smooth: Callable[[Tensor], Tensor]) -> "GoodScores":
        """Smooth distances (n, patches) to maps (n, h, w) with `smooth`, a few at a time."""
        minima, maxima = [], []
        for distance in torch.split(left_out.distance, MAPS_AT_ONCE):
            anomaly_map = smooth(distance)
            minima.append(anomaly_map.amin(dim=(1, 2)))
            maxima.append(anomaly_map.amax(dim=(1, 2)))
        highest = torch.cat(maxima).cpu().numpy()
        scores = highest if left_out.score is None else left_out.score.cpu().numpy()
        count = min(math.ceil(UNUSUAL_SHARE * len(scores)), MOST_UNUSUAL)
        unusual = np.argsort(-scores, kind="stable")[:count].tolist()
        return cls(
            scores=scores,
            highest={index: left_out.distance[index].float().cpu().numpy() for index in unusual},
            map_minima=torch.cat(minima).cpu().numpy(),
            map_maxima=highest,
        )

    def calibrate(self, rate: float | None = None) -> Calibration:
        """Set the decision limit at a false-alarm rate; None: 1 %, or 1/(n+1) for few pictures.

        Raises:
            DataError: scores that are not finite.
            ConfigError: the rate cannot be promised.
        """
        return calibrate(self.scores, self.map_maxima, rate=rate)

    def limits(self, calibration: Calibration) -> Limits:
        """Return the limits of a calibration, and the ranges of the pictures without outliers."""
        usual = ~set_aside(self.scores)
        scores = self.scores[usual]
        return Limits(
            threshold=calibration.limit(),
            threshold_rule=calibration.promise(),
            false_alarm_rate=calibration.rate,
            score_range=(float(scores.min()), float(scores.max())),
            map_range=(
                float(self.map_minima[usual].min()),
                float(self.map_maxima[usual].max()),
            ),
            map_threshold=calibration.map_limit(),
        )
