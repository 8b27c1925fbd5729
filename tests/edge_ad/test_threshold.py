"""The decision limit."""

from statistics import NormalDist

import numpy as np
import pytest

from edge_ad.threshold import choose_threshold


@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_is_the_99th_percentile_of_good_scores(count: int) -> None:
    scores = np.random.default_rng(0).normal(10, 1, count).tolist()
    threshold = choose_threshold(scores)
    assert threshold.value == pytest.approx(np.percentile(scores, 99))
    assert str(count) in threshold.rule


def test_about_one_good_part_in_a_hundred_is_above() -> None:
    scores = np.random.default_rng(1).normal(10, 1, 10_000)
    share = float((scores >= choose_threshold(scores.tolist()).value).mean())
    assert share == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize(("count", "rate"), [(1, 0.5), (4, 0.206), (21, 0.0545), (10_000, 0.0102)])
def test_the_fewer_the_pictures_the_more_false_alarms_are_promised(count: int, rate: float) -> None:
    assert choose_threshold([1.0] * count).false_alarm_rate == pytest.approx(rate, abs=5e-4)


@pytest.mark.parametrize("count", [1, 4, 21, 100])
def test_promised_false_alarms_come_true_on_average(count: int) -> None:
    draws = np.random.default_rng(2).normal(size=(2000, count)).tolist()
    rates = [NormalDist().cdf(-choose_threshold(draw).value) for draw in draws]
    promised = choose_threshold(draws[0]).false_alarm_rate
    assert float(np.mean(rates)) == pytest.approx(promised, rel=0.1)
