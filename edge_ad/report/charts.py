"""The charts of a report as inline SVG: how scores lie, and what other decision limits would do.

Their colours come from the style sheet of the page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.data import ScoredSample
from edge_ad.run_metrics import decision_rates
from edge_ad_runtime.model.calibration import Calibration, percent

LOWEST_RATE, HIGHEST_RATE = 0.001, 0.1
TABLE_RATES = (0.001, 0.003, 0.01, 0.03, 0.1)

_WIDTH, _LEFT, _RIGHT = 760, 52, 20
_LABEL_HEIGHT = 48
"""Below a chart, for the numbers of its axis and their name."""

_HISTOGRAM_TOP, _HISTOGRAM_HEIGHT = 30, 210
_TRADE_OFF_TOP, _TRADE_OFF_HEIGHT = 16, 196
_N_BINS = 44
_N_POINTS = 61
_SMALLEST_STEP = 1e-9


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """From scores and counts to the histogram's units."""

    low: float
    high: float
    base: float
    per_count: float

    def x(self, score: float) -> float:
        return _LEFT + (score - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, count: float) -> float:
        """Place a count above the axis; a negative one lies below."""
        return self.base - count * self.per_count


def draw_histogram(
    *,
    training: Sequence[float],
    good: Sequence[float],
    defective: Sequence[float],
    threshold: float,
) -> str:
    """Return an SVG element: good parts above the axis, defective ones below.

    Args:
        training: scores of the fitted good pictures, each left out of the fit in turn.
        good: scores of good test pictures; may be empty.
        defective: scores of defective test pictures; may be empty.
        threshold: decision limit in the unit of the scores.
    """
    edges = _bin_edges([*training, *good, *defective, threshold])
    counts = [np.histogram(scores, edges)[0] for scores in (training, good, defective)]
    above, below = int((counts[0] + counts[1]).max()), int(counts[2].max())
    per_count = _HISTOGRAM_HEIGHT / max(above + below, 1)
    base = _HISTOGRAM_TOP + above * per_count
    axes = _Axes(low=edges[0], high=edges[-1], base=base, per_count=per_count)
    nothing = np.zeros_like(counts[0])
    return _svg(
        "Histogram of the scores of good and defective parts",
        _HISTOGRAM_TOP + _HISTOGRAM_HEIGHT,
        [
            _count_axis(axes, above, below),
            _bars(axes, edges, counts[0], ("training", "good training parts", nothing)),
            _bars(axes, edges, counts[1], ("good", "good test parts", counts[0])),
            _bars(axes, edges, -counts[2], ("defective", "defective test parts", nothing)),
            _score_axis(axes),
            _limit(axes, threshold),
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One decision limit and what it does.

    Attributes:
        rate: promised false-alarm rate, 0..1.
        limit: in the unit of the score.
        false_alarms: share of the good test pictures that it stops, 0..1; None: there are none.
        caught: share of the defective test pictures that it stops, 0..1.
    """

    rate: float
    limit: float
    false_alarms: float | None
    caught: float


def table_choices(calibration: Calibration, scored: Sequence[ScoredSample]) -> list[Choice]:
    """Return a few round rates, with the promised one among them."""
    promised = calibration.rate
    others = [rate for rate in TABLE_RATES if not math.isclose(rate, promised, rel_tol=0.05)]
    return _choices(calibration, scored, sorted([*others, promised]))


def draw_trade_off(calibration: Calibration, scored: Sequence[ScoredSample]) -> str:
    """Return an SVG element: false alarms and defects caught, by the promised false-alarm rate."""
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, _N_POINTS).tolist()
    choices = _choices(calibration, scored, rates)
    (chosen,) = _choices(calibration, scored, [calibration.rate])
    caught = [(_rate_x(one.rate), _share_y(one.caught)) for one in choices]
    alarms = [
        (_rate_x(one.rate), _share_y(one.false_alarms))
        for one in choices
        if one.false_alarms is not None
    ]
    return _svg(
        "Share of defects caught against the promised false-alarm rate",
        _TRADE_OFF_TOP + _TRADE_OFF_HEIGHT,
        [
            _share_axis(),
            _rate_axis(),
            _curve("caught", caught),
            _curve("alarms", alarms),
            _chosen(chosen),
        ],
    )


def _svg(label: str, bottom: int, parts: Sequence[str]) -> str:
    """Put a chart together whose lower edge, without the numbers of its axis, is `bottom`."""
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {bottom + _LABEL_HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _level(y: float, label: str, *, is_axis: bool) -> str:
    """Draw a level line with its number, on the axis or as a part of the grid."""
    kind = "axis" if is_axis else "grid"
    line = f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _tick(_LEFT - 8, y + 4, label, anchor="end")


def _tick(x: float, y: float, label: str, *, anchor: str = "middle") -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>'


def _axis_name(bottom: int, name: str) -> str:
    return _tick((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 40, name)


def _bin_edges(values: Sequence[float]) -> NDArray[np.float64]:
    """Span all values with a margin; equal values still give bins of some width."""
    low, high = min(values), max(values)
    margin = max(0.02 * (high - low), 1e-3 * abs(high), 1e-6)
    return np.linspace(max(low - margin, 0.0), high + margin, _N_BINS + 1)


def _bars(
    axes: _Axes,
    edges: NDArray[np.float64],
    counts: NDArray[np.int64],
    style: tuple[str, str, NDArray[np.int64]],
) -> str:
    """Draw one bar a bin, on top of what is stacked below it; negative counts hang down."""
    css_class, name, below = style
    bars = []
    for index in np.flatnonzero(counts):
        count, start = int(counts[index]), int(below[index])
        left, right = axes.x(edges[index]) + 0.5, axes.x(edges[index + 1]) - 0.5
        top = axes.y(max(start + count, start))
        height = abs(count) * axes.per_count
        bars.append(
            f'<rect class="{css_class}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{right - left:.1f}" height="{height:.1f}"><title>{abs(count)} {name}, '
            f"score {edges[index]:.4g} to {edges[index + 1]:.4g}</title></rect>"
        )
    return "".join(bars)


def _count_axis(axes: _Axes, above: int, below: int) -> str:
    step = max(round(_nice_step((above + below) / 5)), 1)
    levels = [
        _level(axes.y(count), str(abs(count)), is_axis=count == 0)
        for count in range(-(below // step) * step, above + 1, step)
    ]
    return "".join(levels) + _tick(_LEFT - 8, 12, "parts", anchor="end")


def _score_axis(axes: _Axes) -> str:
    step = _nice_step((axes.high - axes.low) / 7)
    bottom = _HISTOGRAM_TOP + _HISTOGRAM_HEIGHT
    ticks = [
        _tick(axes.x(index * step), bottom + 18, f"{index * step:.6g}")
        for index in range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1)
    ]
    return "".join(ticks) + _axis_name(bottom, "score, larger = more unusual")


def _limit(axes: _Axes, threshold: float) -> str:
    """Draw the decision limit; its words stand where there is room."""
    x = axes.x(threshold)
    anchor, shift = ("end", -6) if x > _WIDTH * 0.7 else ("start", 6)
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_HISTOGRAM_TOP - 18}" '
        f'y2="{_HISTOGRAM_TOP + _HISTOGRAM_HEIGHT}"/><text class="limit-text" '
        f'x="{x + shift:.1f}" y="{_HISTOGRAM_TOP - 8}" text-anchor="{anchor}">'
        f"decision limit {threshold:.4g}</text>"
    )


def _nice_step(rough: float) -> float:
    """Return the next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(rough, _SMALLEST_STEP)))
    return next((power * nice for nice in (1, 2, 5) if power * nice >= rough), 10 * power)


def _choices(
    calibration: Calibration, scored: Sequence[ScoredSample], rates: Sequence[float]
) -> list[Choice]:
    """Return what the limit of each rate does to a test split with defective pictures."""
    choices = []
    for rate in rates:
        limit = calibration.limit(rate)
        false_alarms, missed = decision_rates(scored, limit)
        caught = 1 - (missed or 0.0)
        choices.append(Choice(rate=rate, limit=limit, false_alarms=false_alarms, caught=caught))
    return choices


def _rate_x(rate: float) -> float:
    """Place a rate on a logarithmic axis; rates beyond its ends lie on them."""
    inside = min(max(rate, LOWEST_RATE), HIGHEST_RATE)
    share = math.log(inside / LOWEST_RATE) / math.log(HIGHEST_RATE / LOWEST_RATE)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _share_y(share: float) -> float:
    return _TRADE_OFF_TOP + (1 - share) * _TRADE_OFF_HEIGHT


def _share_axis() -> str:
    return "".join(
        _level(_share_y(share), f"{100 * share:.0f} %", is_axis=share == 0)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def _rate_axis() -> str:
    bottom = _TRADE_OFF_TOP + _TRADE_OFF_HEIGHT
    ticks = [
        _tick(_rate_x(rate), bottom + 18, percent(rate))
        for rate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    ]
    return "".join(ticks) + _axis_name(bottom, "promised false-alarm rate")


def _curve(css_class: str, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{css_class}" points="{steps}"/>'


def _chosen(chosen: Choice) -> str:
    """Draw the limit in force, with its words where there is room."""
    x, y = _rate_x(chosen.rate), _share_y(chosen.caught)
    anchor, shift = ("end", -10) if x > _WIDTH * 0.55 else ("start", 10)
    # Between the two curves there is room.
    words = (y + _share_y(chosen.false_alarms or 0.0)) / 2
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TRADE_OFF_TOP}" '
        f'y2="{_TRADE_OFF_TOP + _TRADE_OFF_HEIGHT}"/>'
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        f'<text class="limit-text" x="{x + shift:.1f}" y="{words:.1f}" text-anchor="{anchor}">'
        f"chosen: {percent(chosen.rate)}, {100 * chosen.caught:.0f} % caught</text>"
    )
