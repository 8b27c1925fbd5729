"""The decision limit, and how unusual a score is, from the scores of good parts alone.

The upper tail of the scores of good parts is taken as exponential, which nearly all
distributions approach (Weissman, Estimation of parameters and large quantiles based on the k
largest observations, 1978). Spacings of an exponential tail are independent (Renyi, 1953), so the
limit and the p-value below are exact on average over training sets, however few the pictures.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad_runtime.errors import ConfigError, DataError, ModelFileError
from edge_ad_runtime.model.document import Document

Method = Literal["loo", "cross-fit", "device"]
Basis = Literal["order statistic", "measured", "extrapolated"]

VERSION = 1
MAX_SCORES = 512
"""Scores that are stored one by one; of more pictures, this many quantiles."""

DEFAULT_RATE = 0.01
SMALLEST_RATE = 1e-9
ORDER_STATISTIC_FROM = 5
"""Expected false alarms among the pictures from which a score itself is the limit."""

QUANTILES_ABOVE = 4
"""Stored quantiles that must lie above a limit that is read from them, where n is above 512."""

OUTLIER_RATE = 1e-4
OUTLIER_ROUNDS = 3
MOST_OUTLIERS = 0.15
"""Share of the pictures; where more look like outliers, the tail is heavy and none is one."""

CONFIDENCE = 0.95
DRAWS = 100_000
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The upper tail of n scores, as an exponential distribution.

    Attributes:
        k: scores above `u`.
        m: spacings that `sigma` was averaged over, at most k.
        u: the (k+1)-th largest score.
        sigma: mean of the normalised spacings, in the unit of the score; 0: all are equal.
    """

    k: int
    m: int
    u: float
    sigma: float

    @classmethod
    def read(cls, fields: Document, n: int) -> "Tail":
        """Read the tail of n scores; raises ValueError where it cannot be one."""
        tail = cls(
            k=fields.whole("k", 1, n - 1),
            m=fields.whole("m", 1),
            u=fields.number("u"),
            sigma=fields.number("sigma", 0),
        )
        if tail.m > tail.k:
            raise ValueError(f"expected m up to k, {tail.k}, got {tail.m}")
        return tail

    def limit(self, rate: float, n: int) -> float:
        """Return the score that a share `rate` of new good parts reaches, expected over fits."""
        return self.u + self.m * self.sigma * self._stretch(rate, n)

    def draw_rates(
        self, rate: float, n: int, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw real rates of such limits over training sets, for an exponential tail."""
        above_u = generator.beta(self.k + 1, n - self.k, DRAWS)
        estimate = generator.gamma(self.m, size=DRAWS)  # m times the fitted over the real sigma
        return np.asarray(above_u * np.exp(-self._stretch(rate, n) * estimate))

    def _stretch(self, rate: float, n: int) -> float:
        return float(((self.k + 1) / ((n + 1) * rate)) ** (1 / self.m)) - 1

    def p_value(self, score: float, n: int) -> float:
        """Return the expected share of new good parts that reach a score above `u`."""
        if self.sigma == 0:
            return 1 / (n + 1)
        stretch = 1 + (score - self.u) / (self.m * self.sigma)
        return float((self.k + 1) / (n + 1) * stretch**-self.m)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What good parts score, and the decision limit that follows.

    Attributes:
        method: where the scores come from: `loo` (each picture left out of the fit in turn),
            `cross-fit` (each fifth of the pictures left out in turn) or `device` (pictures of the
            camera that is in use).
        rate: promised false-alarm rate, the share of good parts at or above the limit, 0..1.
        basis: `order statistic` (the limit is one of the scores), `measured` (it follows from the
            highest scores, and at least one picture is expected above it) or `extrapolated` (it
            lies beyond what so few pictures can show).
        n: pictures that the limit rests on.
        n_set_aside: pictures that were left out as outliers, not counted in n.
        scores: ascending, one per picture; of more than 512 pictures, evenly spaced quantiles.
        tail: upper tail of the scores.
        map_maxima: largest values of the anomaly maps, in the form of `scores`.
        map_tail: upper tail of `map_maxima`.
        version: of this document.
    """

    method: Method
    rate: float
    basis: Basis
    n: int
    n_set_aside: int
    scores: tuple[float, ...]
    tail: Tail
    map_maxima: tuple[float, ...]
    map_tail: Tail
    version: int = VERSION

    def limit(self, rate: float | None = None) -> float:
        """Return the decision limit at a false-alarm rate; None: the promised one."""
        return _limit(self.scores, self.tail, self.n, self.rate if rate is None else rate)

    def map_limit(self, rate: float | None = None) -> float:
        """Return the map value that a share `rate` of good parts reaches somewhere."""
        return _limit(self.map_maxima, self.map_tail, self.n, self.rate if rate is None else rate)

    def p_value(self, score: float) -> float:
        """Return the expected share of good parts with this score or a higher one, 0..1."""
        return _p_value(self.scores, self.tail, self.n, score)

    def map_p_value(self, peak: float) -> float:
        """Return the expected share of good parts whose map reaches this value somewhere."""
        return _p_value(self.map_maxima, self.map_tail, self.n, peak)

    def with_rate(self, rate: float) -> "Calibration":
        """Return the same scores with another promise.

        Raises:
            ConfigError: the rate is below 1e-9, or 1 or more.
        """
        return replace(self, rate=check_rate(rate), basis=_basis(rate, self.n))

    def scaled(self, score: float, peak: float) -> "Calibration":
        """Return what it would be if all scores and all map maxima were multiplied by a factor.

        Limits are multiplied by the same factors, and p-values of multiplied scores stay.
        """
        return replace(
            self,
            scores=tuple(score * each for each in self.scores),
            tail=replace(self.tail, u=score * self.tail.u, sigma=score * self.tail.sigma),
            map_maxima=tuple(peak * each for each in self.map_maxima),
            map_tail=replace(
                self.map_tail, u=peak * self.map_tail.u, sigma=peak * self.map_tail.sigma
            ),
        )

    def rate_range(self, rate: float | None = None) -> tuple[float, float]:
        """Return the range that holds the real false-alarm rate in 90 % of all training sets.

        The limit keeps `rate` on average; that of one training set lies higher or lower. Drawn
        from the exact distribution for exponential tails, accurate to about 1 % of each bound.
        """
        rate = self.rate if rate is None else rate
        generator = np.random.default_rng(0)
        rank = _rank(rate, self.n)
        if _is_order_statistic(rank, self.n):
            drawn = generator.beta(rank, self.n + 1 - rank, DRAWS)
        else:
            drawn = self.tail.draw_rates(rate, self.n, generator)
        low, high = np.quantile(drawn, (0.05, 0.95))
        return float(low), float(min(high, 1.0))

    def promise(self) -> str:
        """Return the promise in words: rate, basis, pictures and what can be expected of them."""
        low, high = self.rate_range()
        basis = {
            "order statistic": "read directly from the scores of",
            "measured": "measured on",
            "extrapolated": "extrapolated from",
        }[self.basis]
        left_out = f" ({self.n_set_aside} set aside as outliers)" if self.n_set_aside else ""
        device = self.method == "device"
        parts = "those of the calibration" if device else "those of the training"
        times = "calibrations" if device else "trainings"
        return (
            f"on average {percent(self.rate)} of good parts like {parts} will be "
            f"called anomalous: {basis} {self.n} pictures{left_out}. With this many pictures the "
            f"real rate lies between {percent(low)} and {percent(high)} in 9 of 10 {times}; a "
            f"guarantee with 95 % confidence would need {pictures_for_guarantee(self.rate):,} "
            "pictures"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document that `from_json` reads: numbers, strings, lists and dicts only."""
        return asdict(self) | {"scores": list(self.scores), "map_maxima": list(self.map_maxima)}

    @classmethod
    def from_json(cls, document: object) -> "Calibration":
        """Read a document of `to_json`; keys that a later version added are ignored.

        Raises:
            ModelFileError: a value is missing, of the wrong type or out of its range.
        """
        if not isinstance(document, dict):
            raise ModelFileError(
                "expected the calibration as a JSON object, got something else: write it again"
            )
        try:
            return cls._read(Document(document))
        except ValueError as error:
            raise ModelFileError(f"the calibration is damaged ({error}): write it again") from error

    @classmethod
    def _read(cls, fields: Document) -> "Calibration":
        version = fields.whole("version", 1)
        if version > VERSION:
            raise ModelFileError(
                f"the calibration has version {version}, this program reads up to {VERSION}: "
                "update edge-ad here"
            )
        n = fields.whole("n", 2)
        rate = fields.number("rate", SMALLEST_RATE, 1)
        if rate == 1:
            raise ValueError("expected a rate below 1")
        return cls(
            version=version,
            method=cast("Method", fields.choice("method", get_args(Method))),
            basis=cast("Basis", fields.choice("basis", get_args(Basis))),
            rate=rate,
            n=n,
            n_set_aside=fields.whole("n_set_aside"),
            scores=fields.ascending("scores", min(n, MAX_SCORES)),
            tail=Tail.read(Document(fields.table("tail")), n),
            map_maxima=fields.ascending("map_maxima", min(n, MAX_SCORES)),
            map_tail=Tail.read(Document(fields.table("map_tail")), n),
        )


def calibrate(
    scores: ArrayLike, map_maxima: ArrayLike, *, rate: float | None = None, method: Method = "loo"
) -> Calibration:
    """Set the decision limit from scores of good pictures that the fit has not seen.

    Args:
        scores: (n,), of good pictures, each scored as if it were new; any order.
        map_maxima: (n,), largest value of each picture's anomaly map, in the same order.
        rate: promised false-alarm rate; None: 1 %, or 1/(n+1) where fewer than 99 pictures
            cannot show so little.
        method: where the scores come from; see `Calibration`.

    Raises:
        DataError: fewer than 2 pictures, or scores that are not finite.
        ConfigError: the rate is below 1e-9, or 1 or more.
    """
    everything = _checked(scores)
    maxima = _checked(map_maxima)
    if len(everything) != len(maxima):
        raise DataError(
            f"expected one map maximum for each score, got {len(everything)} scores and "
            f"{len(maxima)} maxima"
        )
    aside = set_aside(everything)
    good, maxima = np.sort(everything[~aside]), np.sort(maxima[~aside])
    n = len(good)
    rate = max(DEFAULT_RATE, 1 / (n + 1)) if rate is None else check_rate(rate)
    return Calibration(
        method=method,
        rate=rate,
        basis=_basis(rate, n),
        n=n,
        n_set_aside=int(aside.sum()),
        scores=_stored(good),
        tail=_fit_tail(good),
        map_maxima=_stored(maxima),
        map_tail=_fit_tail(maxima),
    )


def set_aside(scores: ArrayLike) -> NDArray[np.bool_]:
    """Mark outliers among the scores (n,) of pictures that should all be good: a mask (n,).

    The tail is fitted without its highest tenth, and what lies above the limit of one false alarm
    in 10,000 goes; three times at most. Nothing goes in a round after which more than 15 % would
    be gone.

    Raises:
        DataError: fewer than 2 scores, or scores that are not finite.
    """
    values = _checked(scores)
    kept = np.ones(len(values), dtype=bool)
    for _ in range(OUTLIER_ROUNDS):
        n = int(kept.sum())
        k, dropped = round(0.4 * n), math.ceil(0.1 * n)
        if k <= dropped:
            break  # too few pictures to tell
        tail = _fit_tail(np.sort(values[kept]), k=k, dropped=dropped)
        remaining = kept & (values <= tail.limit(OUTLIER_RATE, n))
        too_many = remaining.sum() < (1 - MOST_OUTLIERS) * len(values)
        if tail.sigma == 0 or too_many or remaining.sum() == n:
            break
        kept = remaining
    return ~kept


def check_rate(rate: float) -> float:
    """Return a false-alarm rate that can be promised.

    Raises:
        ConfigError: it is below 1e-9, or 1 or more.
    """
    if not SMALLEST_RATE <= rate < 1:
        raise ConfigError(
            f"expected a false-alarm rate of at least {SMALLEST_RATE:g} and below 1, such as 0.01 "
            f"for 1 %, got {rate:g}"
        )
    return rate


def pictures_for_guarantee(rate: float) -> int:
    """Return how many pictures guarantee `rate` with 95 % confidence, whatever the distribution.

    Their highest score as the limit: the rate is exceeded with probability (1 - rate)^n.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate) - ROUNDING)


def percent(share: float) -> str:
    """Write a share in percent with two significant digits: 0.0123 is `1.2 %`."""
    value = 100 * share
    if value >= 9.95 or value == 0:
        return f"{value:.0f} %"
    decimals = max(0, 1 - math.floor(math.log10(value)))
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise DataError(
            f"expected the scores of at least 2 good pictures, got shape {values.shape}: "
            "add pictures of good parts"
        )
    if not np.isfinite(values).all():
        raise DataError(
            "expected finite scores of good pictures, got nan or infinity: check the pictures and "
            "the backbone's weights"
        )
    return values


def _fit_tail(ascending: NDArray[np.float64], *, k: int | None = None, dropped: int = 0) -> Tail:
    """Fit the k highest of the scores (n,), without the spacings of the `dropped` highest."""
    n = len(ascending)
    if k is None:
        k = min(max(round(n**0.7), 4), n - 1)
    top = ascending[::-1][: k + 1]
    ranks = np.arange(1, k + 1)
    spacings = (ranks * (top[:-1] - top[1:]))[dropped:]
    return Tail(k=k, m=len(spacings), u=float(top[-1]), sigma=float(spacings.mean()))


def _rank(rate: float, n: int) -> int:
    """Which of the largest scores the rate falls on, rounded down; 0: beyond the largest."""
    return math.floor(rate * (n + 1) + ROUNDING)


def _is_order_statistic(rank: int, n: int) -> bool:
    """Whether the scores tell the limit; beyond the last stored quantiles they do not."""
    return rank >= max(ORDER_STATISTIC_FROM, QUANTILES_ABOVE * n / MAX_SCORES)


def _basis(rate: float, n: int) -> Basis:
    rank = _rank(rate, n)
    if _is_order_statistic(rank, n):
        return "order statistic"
    return "measured" if rank >= 1 else "extrapolated"


def _limit(scores: Sequence[float], tail: Tail, n: int, rate: float) -> float:
    check_rate(rate)
    rank = _rank(rate, n)
    if not _is_order_statistic(rank, n):
        limit = tail.limit(rate, n)
    elif len(scores) == n:
        limit = scores[n - rank]
    else:
        limit = float(np.quantile(scores, (n - rank) / (n - 1)))
    # `score >= limit` is anomalous, but a score equal to the one that gives the limit is good. The
    # next float32, since scores are float32.
    return float(np.nextafter(np.float32(limit), np.float32(np.inf)))


def _p_value(scores: Sequence[float], tail: Tail, n: int, score: float) -> float:
    if score > tail.u:
        return tail.p_value(score, n)
    share = 1 - bisect_left(scores, score) / len(scores)
    return float(min(1.0, (1 + share * n) / (n + 1)))


def _stored(ascending: NDArray[np.float64]) -> tuple[float, ...]:
    if len(ascending) > MAX_SCORES:
        ascending = np.quantile(ascending, np.linspace(0, 1, MAX_SCORES))
    return tuple(ascending.tolist())
