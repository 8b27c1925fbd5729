"""The decision limit."""

import numpy as np
import pytest

from edge_ad.threshold import choose_threshold


@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_is_the_99th_percentile_of_good_scores(count: int) -> None:
    scores = np.random.default_rng(0).normal(10, 1, count).tolist()
    threshold = choose_threshold(scores)
    assert threshold.value == pytest.approx(np.percentile(scores, 99))
    assert threshold.false_alarm_rate == pytest.approx(0.01)
    assert str(count) in threshold.rule


def test_about_one_good_part_in_a_hundred_is_above() -> None:
    scores = np.random.default_rng(1).normal(10, 1, 10_000)
    share = float((scores >= choose_threshold(scores.tolist()).value).mean())
    assert share == pytest.approx(0.01, abs=0.002)
