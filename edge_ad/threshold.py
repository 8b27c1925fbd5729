"""The decision limit, from the scores of good parts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.info import Limits

PERCENTILE = 99.0


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A decision limit and how it was found.

    Attributes:
        value: in the unit of the score; `score >= value` is anomalous.
        false_alarm_rate: share of good parts expected at or above it, 0..1.
        rule: how it was found, in words.
    """

    value: float
    false_alarm_rate: float
    rule: str


def choose_threshold(good_scores: Sequence[float]) -> Threshold:
    """Return the 99th percentile of the scores of good pictures that the fit has not seen.

    With fewer than 100 scores the percentile lies between the two highest ones, so the promise
    is only as good as the number of pictures: the rule names it.
    """
    return Threshold(
        value=float(np.percentile(good_scores, PERCENTILE)),
        false_alarm_rate=1 - PERCENTILE / 100,
        rule=f"{PERCENTILE:g}th percentile of {len(good_scores)} held-out good pictures",
    )


class GoodScores:
    """Scores and maps of good pictures that the fit has not seen."""

    def __init__(self) -> None:
        """Start with none."""
        self._scores: list[float] = []
        self._lows: list[float] = []
        self._highs: list[float] = []

    def add(self, score: float, anomaly_map: NDArray[np.float32]) -> None:
        """Take a picture's score and its map (h, w)."""
        self._scores.append(score)
        self._lows.append(float(anomaly_map.min()))
        self._highs.append(float(anomaly_map.max()))

    def limits(self) -> Limits:
        """Return the limits; there must be at least one picture."""
        threshold = choose_threshold(self._scores)
        return Limits(
            threshold=threshold.value,
            threshold_rule=threshold.rule,
            false_alarm_rate=threshold.false_alarm_rate,
            score_range=(min(self._scores), max(self._scores)),
            map_range=(min(self._lows), max(self._highs)),
            map_threshold=choose_threshold(self._highs).value,
        )
