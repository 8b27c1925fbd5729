"""The decision limit, from the scores of good parts alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What good parts look like to a detector, as in `metrics.json` and in the model file.

    Attributes:
        threshold: decision limit in the unit of the score.
        threshold_rule: how it was found, in words.
        false_alarm_rate: share of good parts expected at or above it, 0..1.
        score_range: (lowest, highest) score.
        map_range: (lowest, highest) value of a map.
        map_threshold: map value from which a pixel is drawn as defective. Score and map need not
            have one unit (SPADE), so the map has a limit of its own.
    """

    threshold: float
    threshold_rule: str
    false_alarm_rate: float
    score_range: tuple[float, float]
    map_range: tuple[float, float]
    map_threshold: float


class GoodScores:
    """Scores and maps of good pictures that the fit has not seen."""

    def __init__(self) -> None:
        """Start with none."""
        self._scores: list[float] = []
        self._lows: list[float] = []
        self._highs: list[float] = []

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._scores)

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
