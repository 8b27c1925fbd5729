"""The decision limit in the model file.

It comes from leave-one-out scores in float32, also where the file rounds: rounding moves the scores
of new pictures by a few thousandths at random and by less than one on average (PaDiM in 8 bits,
against refits without the picture that were rounded themselves; tests/export/test_limits.py and
benchmarks/export.md). A shift beyond that is measured on good pictures that the fit has not seen.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_ad_export.proof import Comparison
from edge_ad_runtime import ModelInfo
from edge_ad_runtime.model.golden import NEGLIGIBLE
from edge_ad_runtime.model.score_distribution import SMALLEST_RATE

FEWEST_UNSEEN = 10
"""Good pictures that the fit has not seen, by which their common shift can be measured."""

LARGEST_RATE = 0.999
"""A limit below all scores of good parts promises nothing; a promise needs a rate below 1."""


def with_own_limits(info: ModelInfo, comparison: Comparison) -> ModelInfo:
    """Return the metadata with limits, ranges and calibration in the unit of the file's scores."""
    unseen = comparison.good.copy()
    if info.calibration:  # without one, the limit is of pictures that were held out
        unseen[: comparison.n_training] = False
    score = _factor(comparison.expected[unseen], comparison.got[unseen], info.threshold)
    peak = _factor(
        comparison.expected_peaks[unseen], comparison.got_peaks[unseen], info.map_threshold
    )
    return replace(
        info,
        threshold=info.threshold * score,
        map_threshold=info.map_threshold * peak,
        score_range=(info.score_range[0] * score, info.score_range[1] * score),
        map_range=(info.map_range[0] * peak, info.map_range[1] * peak),
        calibration=info.calibration.scaled(score, peak) if info.calibration else None,
    )


def with_threshold(info: ModelInfo, threshold: float) -> ModelInfo:
    """Return the metadata with a decision limit that the user chose, and what it promises."""
    rule, rate, calibration = "set at the export", info.false_alarm_rate, info.calibration
    if calibration:
        rate = min(max(calibration.p_value(threshold), SMALLEST_RATE), LARGEST_RATE)
        calibration = calibration.with_rate(rate)
        rule = f"{rule}; {calibration.promise()}"
    return replace(
        info,
        threshold=threshold,
        threshold_rule=rule,
        false_alarm_rate=rate,
        calibration=calibration,
    )


def _factor(expected: NDArray[np.float64], got: NDArray[np.float64], limit: float) -> float:
    """Return what the values are multiplied by, as a median; 1 where too few can tell.

    A copy of a fitted picture scores next to nothing (SPADE), all of which may be rounding.
    """
    telling = expected >= NEGLIGIBLE * abs(limit)
    if telling.sum() < FEWEST_UNSEEN:
        return 1.0
    return float(np.median(got[telling] / np.maximum(expected[telling], 1e-12)))
