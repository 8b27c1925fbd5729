"""The decision limit of a model, what it promises, and the document that says so."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike

from edge_ad_runtime.errors import DataError, ModelFileError, counted
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.score_distribution import (
    MAX_SCORES,
    ROUNDING,
    SMALLEST_RATE,
    Basis,
    ScoreDistribution,
    Tail,
    check_rate,
    checked_scores,
    set_aside,
)

Method = Literal["loo", "cross-fit", "device"]

VERSION = 1
DEFAULT_RATE = 0.01
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What good parts score, and the decision limit that follows.

    Attributes:
        method: where the scores come from: `loo` (each picture left out of the fit in turn),
            `device` (pictures of the camera that is in use) or, in older files, `cross-fit` (each
            fifth of the pictures left out in turn).
        rate: promised false-alarm rate, the share of good parts at or above the limit, 0..1.
        n_set_aside: pictures that the limit does without, as outliers, not counted in n; those of a
            training are fitted all the same.
        of_scores: of the pictures that the limit rests on.
        of_map_maxima: the same of the largest values of their anomaly maps.
        version: of the document.
    """

    method: Method
    rate: float
    n_set_aside: int
    of_scores: ScoreDistribution
    of_map_maxima: ScoreDistribution
    version: int = VERSION

    @property
    def n(self) -> int:
        """Pictures that the limit rests on."""
        return self.of_scores.n

    @property
    def scores(self) -> tuple[float, ...]:
        """Ascending, one per picture; of more than 512 pictures, evenly spaced quantiles."""
        return self.of_scores.scores

    @property
    def map_maxima(self) -> tuple[float, ...]:
        """Largest values of the anomaly maps, in the form of `scores`."""
        return self.of_map_maxima.scores

    @property
    def basis(self) -> Basis:
        """How the limit is found.

        `order statistic` (it is one of the scores), `measured` (it follows from the highest scores,
        and at least one picture is expected above it) or `extrapolated` (it lies beyond what so few
        pictures can show).
        """
        return self.of_scores.basis(self.rate)

    def limit(self, rate: float | None = None) -> float:
        """Return the decision limit at a false-alarm rate; None: the promised one."""
        return self.of_scores.limit(self.rate if rate is None else rate)

    def map_limit(self, rate: float | None = None) -> float:
        """Return the map value that a share `rate` of good parts reaches somewhere."""
        return self.of_map_maxima.limit(self.rate if rate is None else rate)

    def p_value(self, score: float) -> float:
        """Return the expected share of good parts with this score or a higher one, 0..1."""
        return self.of_scores.p_value(score)

    def map_p_value(self, peak: float) -> float:
        """Return the expected share of good parts whose map reaches this value somewhere."""
        return self.of_map_maxima.p_value(peak)

    def rate_range(self, rate: float | None = None) -> tuple[float, float]:
        """Return the range that holds the real false-alarm rate in 90 % of all training sets."""
        return self.of_scores.rate_range(self.rate if rate is None else rate)

    def with_rate(self, rate: float) -> "Calibration":
        """Return the same scores with another promise.

        Raises:
            ConfigError: the rate is below 1e-9, or 1 or more.
        """
        return replace(self, rate=check_rate(rate))

    def scaled(self, score: float, peak: float) -> "Calibration":
        """Return what it would be if all scores and all map maxima were multiplied by a factor.

        Limits are multiplied by the same factors, and p-values of multiplied scores stay.
        """
        return replace(
            self,
            of_scores=self.of_scores.scaled(score),
            of_map_maxima=self.of_map_maxima.scaled(peak),
        )

    def promise(self) -> str:
        """Return the promise in words: rate, basis, pictures and what can be expected of them."""
        low, high = self.rate_range()
        basis = {
            "order statistic": "read directly from the scores of",
            "measured": "measured on",
            "extrapolated": "extrapolated from",
        }[self.basis]
        outliers = "an outlier" if self.n_set_aside == 1 else "outliers"
        left_out = f" ({self.n_set_aside} set aside as {outliers})" if self.n_set_aside else ""
        device = self.method == "device"
        parts = "those of the calibration" if device else "those of the training"
        times = "calibrations" if device else "trainings"
        needed = pictures_for_guarantee(self.rate)
        return (
            f"on average {percent(self.rate)} of good parts like {parts} will be "
            f"called anomalous: {basis} {self.n} pictures{left_out}. With this many pictures the "
            f"real rate lies between {percent(low)} and {percent(high)} in 9 of 10 {times}; a "
            f"guarantee with 95 % confidence would need {counted(needed, 'picture')}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document that `from_json` reads: numbers, strings, lists and dicts only."""
        return {
            "version": self.version,
            "method": self.method,
            "rate": self.rate,
            "basis": self.basis,
            "n": self.n,
            "n_set_aside": self.n_set_aside,
            "scores": list(self.scores),
            "tail": asdict(self.of_scores.tail),
            "map_maxima": list(self.map_maxima),
            "map_tail": asdict(self.of_map_maxima.tail),
        }

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
                f"the calibration has version {version}, but this program reads up to {VERSION}: "
                "update edge-ad here"
            )
        rate = fields.number("rate", SMALLEST_RATE, 1)
        if rate == 1:
            raise ValueError("expected a rate below 1")
        fields.choice("basis", get_args(Basis))  # follows from rate and n; for other programs
        return cls(
            version=version,
            method=cast("Method", fields.choice("method", get_args(Method))),
            rate=rate,
            n_set_aside=fields.whole("n_set_aside"),
            of_scores=_read_distribution(fields, "scores", "tail"),
            of_map_maxima=_read_distribution(fields, "map_maxima", "map_tail"),
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
    everything = checked_scores(scores)
    maxima = checked_scores(map_maxima)
    if len(everything) != len(maxima):
        raise DataError(
            f"expected one map maximum for each score, got {len(everything)} scores and "
            f"{len(maxima)} maxima"
        )
    aside = set_aside(everything)
    of_scores = ScoreDistribution.of(everything[~aside])
    return Calibration(
        method=method,
        rate=default_rate(of_scores.n) if rate is None else check_rate(rate),
        n_set_aside=int(np.sum(aside)),
        of_scores=of_scores,
        of_map_maxima=ScoreDistribution.of(maxima[~aside]),
    )


def default_rate(n: int) -> float:
    """Return the rate that is promised by default: 1 %, or what `n` pictures can show."""
    return max(DEFAULT_RATE, 1 / (n + 1))


def pictures_for_guarantee(rate: float) -> int:
    """Return how many pictures guarantee `rate` with 95 % confidence, whatever the distribution.

    Their highest score as the limit: the rate is exceeded with probability (1 - rate)^n.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate) - ROUNDING)


def percent(share: float) -> str:
    """Write a share in percent with two significant digits: 0.0123 is `1.2 %`.

    Of nearly the whole, what is missing counts: 0.999 is `99.9 %`. What is smaller than any rate
    that can be promised is `0 %`.
    """
    if share < SMALLEST_RATE:
        return "0 %"
    value, decimals = 100 * share, 0
    if value < 9.95:
        decimals = max(0, 1 - math.floor(math.log10(value)))
    elif 99.5 <= value < 100:
        decimals = -math.floor(math.log10(100 - value))
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def _read_distribution(fields: Document, scores: str, tail: str) -> ScoreDistribution:
    n = fields.whole("n", 2)
    return ScoreDistribution(
        n=n,
        scores=fields.ascending(scores, min(n, MAX_SCORES)),
        tail=Tail.read(Document(fields.table(tail)), n),
    )
