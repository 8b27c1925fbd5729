"""What good parts score, from few of them: limits, p-values and outliers.

The upper tail of the scores is taken as exponential, which nearly all distributions approach
(Weissman, Estimation of parameters and large quantiles based on the k largest observations, 1978).
Spacings of an exponential tail are independent (Renyi, 1953), so the limit and the p-value below
are exact on average over training sets, however few the pictures.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.model.document import Document

Basis = Literal["order statistic", "measured", "extrapolated"]

MAX_SCORES = 512
"""Scores that are kept one by one; of more pictures, this many quantiles."""

SMALLEST_RATE = 1e-9
ORDER_STATISTIC_FROM = 5
"""Expected false alarms among the pictures from which a score itself is the limit."""

QUANTILES_ABOVE = 4
"""Stored quantiles that must lie above a limit that is read from them, where n is above 512."""

OUTLIER_RATE = 1e-4
OUTLIER_ROUNDS = 3
MOST_OUTLIERS = 0.15
"""Share of the pictures; where more look like outliers, the tail is heavy and none is one."""

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
    def fit(
        cls, ascending: NDArray[np.float64], *, k: int | None = None, dropped: int = 0
    ) -> "Tail":
        """Fit the k highest of the scores (n,), without the spacings of the `dropped` highest.

        k is about n^0.7 by default.
        """
        n = len(ascending)
        if k is None:
            k = min(max(round(n**0.7), 4), n - 1)
        top = ascending[::-1][: k + 1]
        ranks = np.arange(1, k + 1)
        spacings = (ranks * (top[:-1] - top[1:]))[dropped:]
        return cls(k=k, m=len(spacings), u=float(top[-1]), sigma=float(spacings.mean()))

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

    def p_value(self, score: float, n: int) -> float:
        """Return the expected share of new good parts that reach a score above `u`."""
        if self.sigma == 0:
            return 1 / (n + 1)
        stretch = 1 + (score - self.u) / (self.m * self.sigma)
        return float((self.k + 1) / (n + 1) * stretch**-self.m)

    def draw_rates(
        self, rate: float, n: int, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw real rates of such limits over training sets, for an exponential tail."""
        above_u = generator.beta(self.k + 1, n - self.k, DRAWS)
        estimate = generator.gamma(self.m, size=DRAWS)  # m times the fitted over the real sigma
        return np.asarray(above_u * np.exp(-self._stretch(rate, n) * estimate))

    def _stretch(self, rate: float, n: int) -> float:
        return float(((self.k + 1) / ((n + 1) * rate)) ** (1 / self.m)) - 1


@dataclass(frozen=True, kw_only=True)
class ScoreDistribution:
    """What good parts score that the fit has not seen.

    Attributes:
        n: pictures.
        scores: ascending, one per picture; of more than 512 pictures, evenly spaced quantiles.
        tail: upper tail of the scores.
    """

    n: int
    scores: tuple[float, ...] = field(repr=False)
    tail: Tail

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> "ScoreDistribution":
        """Describe finite scores (n,), at least 2, in any order."""
        ascending = np.sort(scores)
        kept = ascending
        if len(kept) > MAX_SCORES:
            kept = np.quantile(ascending, np.linspace(0, 1, MAX_SCORES))
        return cls(n=len(ascending), scores=tuple(kept.tolist()), tail=Tail.fit(ascending))

    def limit(self, rate: float) -> float:
        """Return the limit that a share `rate` of new good parts reaches, on average over fits.

        It never rises with the rate: where the tail would lie below the lowest score that can be
        the limit itself, that score is the limit.

        Raises:
            ConfigError: the rate is below 1e-9, or 1 or more.
        """
        rank = self._rank(check_rate(rate))
        limit = self._ranked(min(max(rank, self._first_rank), self.n))
        if rank < self._first_rank:
            limit = max(limit, self.tail.limit(rate, self.n))
        # `score >= limit` is anomalous, but a score equal to the one that gives the limit is good.
        # The next float32, since scores are float32.
        return float(np.nextafter(np.float32(limit), np.float32(np.inf)))

    def p_value(self, score: float) -> float:
        """Return the expected share of good parts with this score or a higher one, 0..1."""
        if score > self.tail.u:
            return self.tail.p_value(score, self.n)
        share = 1 - bisect_left(self.scores, score) / len(self.scores)
        return float(min(1.0, (1 + share * self.n) / (self.n + 1)))

    def basis(self, rate: float) -> Basis:
        """Return how a limit at this rate is found: see `Calibration.basis`."""
        rank = self._rank(rate)
        if rank >= self._first_rank:
            return "order statistic"
        return "measured" if rank >= 1 else "extrapolated"

    def rate_range(self, rate: float) -> tuple[float, float]:
        """Return the range that holds the real false-alarm rate in 90 % of all training sets.

        The limit keeps `rate` on average; that of one training set lies higher or lower. Drawn
        from the exact distribution for exponential tails, accurate to about 1 % of each bound.
        """
        generator = np.random.default_rng(0)
        rank = self._rank(rate)
        if rank >= self._first_rank:
            drawn = generator.beta(rank, self.n + 1 - rank, DRAWS)
        else:
            drawn = self.tail.draw_rates(rate, self.n, generator)
        low, high = np.quantile(drawn, (0.05, 0.95))
        return float(low), float(min(high, 1.0))

    def scaled(self, factor: float) -> "ScoreDistribution":
        """Return the distribution of the scores multiplied by a factor."""
        return ScoreDistribution(
            n=self.n,
            scores=tuple(factor * score for score in self.scores),
            tail=replace(self.tail, u=factor * self.tail.u, sigma=factor * self.tail.sigma),
        )

    def _rank(self, rate: float) -> int:
        """Which of the largest scores the rate falls on, rounded down; 0: beyond the largest."""
        return min(math.floor(rate * (self.n + 1) + ROUNDING), self.n)

    @property
    def _first_rank(self) -> int:
        """The first of the largest scores that is a limit; the stored quantiles end before it."""
        return max(ORDER_STATISTIC_FROM, math.ceil(QUANTILES_ABOVE * self.n / MAX_SCORES))

    def _ranked(self, rank: int) -> float:
        """Return the rank-th largest score."""
        if len(self.scores) == self.n:
            return self.scores[self.n - rank]
        return float(np.quantile(self.scores, (self.n - rank) / (self.n - 1)))


def set_aside(scores: ArrayLike) -> NDArray[np.bool_]:
    """Mark outliers among the scores (n,) of pictures that should all be good: a mask (n,).

    The tail is fitted without its highest tenth, and what lies above the limit of one false alarm
    in 10,000 goes; three times at most. Nothing goes in a round after which more than 15 % would
    be gone.

    Raises:
        DataError: fewer than 2 scores, or scores that are not finite.
    """
    values = checked_scores(scores)
    kept = np.ones(len(values), dtype=bool)
    for _ in range(OUTLIER_ROUNDS):
        n = int(kept.sum())
        k, dropped = round(0.4 * n), math.ceil(0.1 * n)
        if k <= dropped:
            break  # too few pictures to tell
        tail = Tail.fit(np.sort(values[kept]), k=k, dropped=dropped)
        remaining = kept & (values <= tail.limit(OUTLIER_RATE, n))
        too_many = remaining.sum() < (1 - MOST_OUTLIERS) * len(values)
        if tail.sigma == 0 or too_many or remaining.sum() == n:
            break
        kept = remaining
    return ~kept


def checked_scores(scores: ArrayLike) -> NDArray[np.float64]:
    """Return scores (n,) as float64.

    Raises:
        DataError: fewer than 2 scores, or scores that are not finite.
    """
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
