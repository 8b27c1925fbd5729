"""The decision limit keeps its promise on average, and its document is checked when it is read."""

import copy
import json
import math

import numpy as np
import pytest

from edge_ad_runtime.errors import ConfigError, DataError, ModelFileError
from edge_ad_runtime.model.calibration import (
    Calibration,
    calibrate,
    percent,
    pictures_for_guarantee,
)
from edge_ad_runtime.model.score_distribution import set_aside


def exponential(n: int, seed: int) -> np.ndarray:
    """Scores of n good parts, 10 + an exponential of mean 2."""
    return 10 + np.random.default_rng(seed).exponential(2.0, n)


def real_rates(n: int, rate: float, fits: int = 4000) -> np.ndarray:
    """Real false-alarm rates of the limits from n exponential scores each, nothing set aside."""
    limits = np.array([limit_of(exponential(n, seed), rate) for seed in range(fits)])
    return np.exp(-(limits - 10) / 2)


def limit_of(scores: np.ndarray, rate: float) -> float:
    """Limit at a rate, if no score was set aside."""
    return calibrate(scores, scores, rate=rate).limit()


@pytest.mark.parametrize(("n", "rate"), [(20, 0.05), (50, 0.01), (100, 0.01), (50, 0.002)])
def test_the_tail_rule_promises_the_exact_rate_for_exponential_tails(n: int, rate: float) -> None:
    rates = real_rates(n, rate)
    error = rates.std() / math.sqrt(len(rates))
    # Setting aside costs: about n in 10,000 of the scores go, and they are the highest.
    assert rate - 3 * error < rates.mean() < 1.15 * rate + 3 * error


def test_the_order_statistic_rule_promises_its_rank_for_any_distribution() -> None:
    generator = np.random.default_rng(1)
    rates = [1 - limit_of(generator.uniform(size=100), 0.05) for _ in range(3000)]
    assert np.mean(rates) == pytest.approx(5 / 101, rel=0.03)


def test_the_limit_follows_the_formulas() -> None:
    scores = exponential(100, 3)
    calibration = calibrate(scores, 2 * scores, rate=0.01)
    top = np.sort(scores)[::-1]
    k = round(100**0.7)
    u = top[k]
    sigma = np.mean(top[:k] - u)  # the sum of the normalised spacings is that of the excesses
    assert calibration.of_scores.tail.k == calibration.of_scores.tail.m == k == 25
    assert calibration.of_scores.tail.u == u
    assert calibration.of_scores.tail.sigma == pytest.approx(sigma)
    expected = u + k * sigma * ((26 / (101 * 0.01)) ** (1 / k) - 1)
    assert calibration.limit() == pytest.approx(expected, rel=1e-6)
    assert calibration.map_limit() == pytest.approx(2 * expected, rel=1e-6)
    score = u + 3.0
    assert calibration.p_value(score) == pytest.approx(26 / 101 * (1 + 3 / (k * sigma)) ** -k)
    # The fifth largest score is good, the next number above it is not.
    assert calibration.limit(0.05) > top[4] >= np.float32(calibration.limit(0.05)) - 1e-5
    assert calibration.p_value(float(top[60])) == pytest.approx(62 / 101)
    assert calibration.p_value(0.0) == 1.0


@pytest.mark.parametrize("n", [3, 5, 6, 20, 60, 99, 250, 600, 3000])
def test_a_higher_rate_never_has_a_higher_limit(n: int) -> None:
    generator = np.random.default_rng(n)
    draw = generator.normal, generator.uniform, generator.exponential, generator.standard_cauchy
    # Where one rule takes over from the other, and over the whole range.
    handover = np.arange(1, 8)[:, None] / (n + 1) * (1 + np.array([-1e-6, 0.0, 1e-6]))
    rates = np.concatenate([np.geomspace(1e-6, 0.999999, 200), handover.ravel()])
    rates = np.sort(rates[rates < 1])
    for number in range(40):
        scores = draw[number % 4](size=n)
        if number % 3 == 0:
            scores = np.round(scores, 1)  # ties
        calibration = calibrate(scores, np.square(scores))
        assert (np.diff([calibration.limit(rate) for rate in rates]) <= 0).all()
        assert (np.diff([calibration.map_limit(rate) for rate in rates]) <= 0).all()


def test_limit_and_p_value_agree() -> None:
    calibration = calibrate(exponential(80, 4), exponential(80, 5))
    for rate in (0.03, 0.012, 0.001, 1e-5):
        assert calibration.p_value(calibration.limit(rate)) == pytest.approx(rate, rel=0.02)
        assert calibration.map_p_value(calibration.map_limit(rate)) == pytest.approx(rate, rel=0.02)


def test_p_values_of_new_good_parts_are_as_frequent_as_they_say() -> None:
    generator = np.random.default_rng(6)
    values = np.array(
        [
            calibration.p_value(score)
            for calibration in (calibrate(s, s) for s in generator.exponential(size=(400, 60)))
            for score in generator.exponential(size=50)
        ]
    )
    assert 0.045 < np.mean(values <= 0.05) < 0.057
    assert 0.008 < np.mean(values <= 0.01) < 0.013


@pytest.mark.parametrize(
    ("rate", "n", "basis"),
    [
        (None, 20, "measured"),
        (None, 99, "measured"),
        (0.05, 99, "order statistic"),
        (0.049, 99, "measured"),
        (0.001, 200, "extrapolated"),
    ],
)
def test_the_basis_says_what_the_pictures_can_show(rate: float | None, n: int, basis: str) -> None:
    calibration = calibrate(np.linspace(1, 2, n), np.linspace(1, 2, n), rate=rate)
    assert calibration.basis == basis
    assert calibration.rate == (rate or max(0.01, 1 / (n + 1)))
    assert calibration.n == n and calibration.n_set_aside == 0


@pytest.mark.parametrize(("n", "rate"), [(100, 0.01), (100, 0.05), (30, 0.01)])
def test_the_90_percent_range_holds_the_real_rate_as_often(n: int, rate: float) -> None:
    low, high = calibrate(exponential(n, 0), exponential(n, 0), rate=rate).rate_range()
    rates = real_rates(n, rate, fits=2000)
    assert np.mean(rates < low) == pytest.approx(0.05, abs=0.02)
    assert np.mean(rates > high) == pytest.approx(0.05, abs=0.025)


def test_outliers_are_set_aside_and_do_not_lift_the_limit() -> None:
    scores = exponential(100, 7)
    spoilt = scores.copy()
    spoilt[[3, 50]] = 60.0, 90.0
    aside = set_aside(spoilt)
    assert np.flatnonzero(aside).tolist() == [3, 50]
    calibration = calibrate(spoilt, spoilt, rate=0.01)
    assert (calibration.n, calibration.n_set_aside) == (98, 2)
    assert calibration.limit() == pytest.approx(limit_of(scores, 0.01), rel=0.15)


def test_good_scores_are_hardly_ever_set_aside() -> None:
    assert np.mean([set_aside(exponential(100, seed)).sum() for seed in range(500)]) < 0.1


def test_nothing_is_set_aside_where_too_much_would_go() -> None:
    scores = np.r_[exponential(80, 8), np.linspace(200, 300, 20)]
    assert not set_aside(scores).any()


@pytest.mark.parametrize("scores", [[1.0] * 40, [1.0, 2.0], [1.0, 1.0, 5.0], [0.0] * 39 + [9.0]])
def test_few_or_equal_scores_still_give_a_limit(scores: list[float]) -> None:
    calibration = calibrate(scores, scores)
    assert not set_aside(scores).any()
    assert math.isfinite(calibration.limit()) and math.isfinite(calibration.map_limit())
    assert calibration.limit() > min(scores)
    assert 0 < calibration.p_value(100.0) <= 1 / (len(scores) + 1)
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_many_scores_are_stored_as_quantiles() -> None:
    scores = exponential(3000, 9)
    calibration = calibrate(scores, scores, rate=0.01)
    assert len(calibration.scores) == len(calibration.map_maxima) == 512
    kept = np.sort(scores)[: calibration.n]
    assert calibration.limit() == pytest.approx(kept[-30], rel=2e-3)
    middle = float(np.quantile(kept, 0.6))
    assert calibration.p_value(middle) == pytest.approx(0.4, abs=0.005)


def test_another_rate_needs_no_scores_again() -> None:
    calibration = calibrate(exponential(100, 2), exponential(100, 2))
    other = calibration.with_rate(0.001)
    assert (other.rate, other.basis) == (0.001, "extrapolated")
    assert other.limit() == calibration.limit(0.001) > calibration.limit()
    with pytest.raises(ConfigError, match="got 1"):
        calibration.with_rate(1.0)


def test_the_promise_names_rate_basis_and_pictures() -> None:
    scores = exponential(100, 2)
    text = calibrate(np.r_[scores, 500.0], np.r_[scores, 500.0], rate=0.01).promise()
    assert "on average 1 % of good parts" in text
    assert "measured on 100 pictures (1 set aside as an outlier)" in text
    assert "299 pictures" in text
    assert "2,995 pictures" in calibrate(scores, scores, rate=0.001).promise()
    assert [pictures_for_guarantee(rate) for rate in (0.05, 0.01, 0.001)] == [59, 299, 2995]


def test_shares_are_written_with_two_digits() -> None:
    shares = (0.01, 0.0123, 0.001, 0.25, 0.0999, 0.00047, 0)
    expected = ["1 %", "1.2 %", "0.1 %", "25 %", "10 %", "0.047 %", "0 %"]
    assert [percent(share) for share in shares] == expected


@pytest.mark.parametrize(
    "scores", [[1.0], [], [[1.0, 2.0]], [1.0, math.nan, 2.0], [1.0, math.inf, 2.0]]
)
def test_scores_that_cannot_be_used_are_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match="expected"):
        calibrate(scores, scores)


def test_the_document_survives_json() -> None:
    calibration = calibrate(exponential(60, 1), exponential(60, 2), method="cross-fit")
    document = json.loads(json.dumps(calibration.to_json(), allow_nan=False))
    assert Calibration.from_json(document | {"later": 1}) == calibration


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("version", None),
        ("method", "guess"),
        ("method", ["loo"]),
        ("basis", None),
        ("rate", 0),
        ("rate", 1.0),
        ("rate", "0.01"),
        ("rate", True),
        ("n", 1),
        ("n", 59),
        ("n", 60.0),
        ("n_set_aside", -1),
        ("scores", []),
        ("scores", [2.0] + [1.0] * 59),
        ("scores", [1.0] * 59 + [math.inf]),
        ("scores", [1.0] * 59 + ["2"]),
        ("scores", "x" * 60),
        ("map_maxima", None),
        ("tail", None),
        ("tail.k", 60),
        ("tail.k", 0),
        ("tail.m", 59),
        ("tail.u", math.nan),
        ("map_tail.sigma", -1.0),
        ("map_tail", {"k": 3}),
    ],
)
def test_a_damaged_document_is_refused(path: str, value: object) -> None:
    document = copy.deepcopy(calibrate(exponential(60, 1), exponential(60, 2)).to_json())
    *parents, last = path.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    with pytest.raises(ModelFileError, match="calibration"):
        Calibration.from_json(document)


@pytest.mark.parametrize("document", [None, [], "x", {}])
def test_something_else_than_a_document_is_refused(document: object) -> None:
    with pytest.raises(ModelFileError, match="calibration"):
        Calibration.from_json(document)


def test_a_small_rate_of_many_scores_is_not_read_between_the_last_two_quantiles() -> None:
    scores = np.random.default_rng(0).exponential(size=5000)
    found = calibrate(scores, scores, rate=0.001)
    assert found.basis == "measured"
    assert found.limit() == pytest.approx(np.log(1000), rel=0.05)
    assert calibrate(scores, scores, rate=0.01).basis == "order statistic"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0123, "1.2 %"),
        (0.0999, "10 %"),
        (0.994, "99 %"),
        (0.999, "99.9 %"),
        (1.0, "100 %"),
        (1e-9, "0.0000001 %"),
        (1e-176, "0 %"),
    ],
)
def test_a_share_is_short_in_words(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_extreme_promises_of_few_pictures_are_one_readable_sentence(n: int) -> None:
    scores = np.sort(np.random.default_rng(n).gamma(5, 1, n))
    rates = (1e-9, 1e-6, 1e-4, 0.01, 0.5, 0.999)
    found = [calibrate(scores, scores, rate=rate) for rate in rates]
    limits = [one.limit() for one in found]
    assert limits == sorted(limits, reverse=True) and np.isfinite(limits).all()
    for one in found:
        assert len(one.promise()) < 300, one.promise()
    assert "on average 99.9 % of" in found[-1].promise()
    assert found[-1].promise().endswith("would need 1 picture")
