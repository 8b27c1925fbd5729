"""The decision limit, from the scores of good parts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.model.info import Limits

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

    Numpy's percentile of n scores is the order statistic 1 + 0.99 (n - 1), and a share of
    1 - k / (n + 1) of all good parts is expected above the k-th lowest of n (David and Nagaraja,
    Order Statistics, 2003, ch. 2). That comes near 1 % only from hundreds of pictures: 10 of them
    promise 10 %, 20 of them 6 %.
    """
    count = len(good_scores)
    position = 1 + PERCENTILE / 100 * (count - 1)
    return Threshold(
        value=float(np.percentile(good_scores, PERCENTILE)),
        false_alarm_rate=1 - position / (count + 1),
        rule=f"{PERCENTILE:g}th percentile of {count} held-out good pictures",
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
