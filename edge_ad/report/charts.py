"""The histogram of scores, as inline SVG: good parts above the axis, defective ones below."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 44, 16, 30, 44
_PLOT_HEIGHT = 210
_N_BINS = 44
_SMALLEST_STEP = 1e-9


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """From scores and counts to the drawing's units."""

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
    """Return an SVG element; its colours come from the page's style sheet.

    Args:
        training: scores of the fitted good pictures, each left out of the fit in turn.
        good: scores of good test pictures; may be empty.
        defective: scores of defective test pictures; may be empty.
        threshold: decision limit in the unit of the scores.
    """
    edges = _bin_edges([*training, *good, *defective, threshold])
    counts = [np.histogram(scores, edges)[0] for scores in (training, good, defective)]
    above, below = int((counts[0] + counts[1]).max()), int(counts[2].max())
    per_count = _PLOT_HEIGHT / max(above + below, 1)
    axes = _Axes(low=edges[0], high=edges[-1], base=_TOP + above * per_count, per_count=per_count)
    parts = [
        _grid(axes, above, below),
        _bars(
            axes, edges, counts[0], ("training", "good training parts", np.zeros_like(counts[0]))
        ),
        _bars(axes, edges, counts[1], ("good", "good test parts", counts[0])),
        _bars(
            axes, edges, -counts[2], ("defective", "defective test parts", np.zeros_like(counts[0]))
        ),
        _score_axis(axes),
        _limit(axes, threshold),
    ]
    height = _TOP + _PLOT_HEIGHT + _BOTTOM
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="Histogram of the scores of good and defective parts">{"".join(parts)}</svg>'
    )


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


def _grid(axes: _Axes, above: int, below: int) -> str:
    """Draw lines of equal count, and the axis."""
    step = max(round(_nice_step((above + below) / 5)), 1)
    lines = []
    for count in range(-(below // step) * step, above + 1, step):
        y = axes.y(count)
        kind = "axis" if count == 0 else "grid"
        lines.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{abs(count)}'
            "</text>"
        )
    lines.append(f'<text class="tick" x="{_LEFT - 8}" y="12" text-anchor="end">parts</text>')
    return "".join(lines)


def _score_axis(axes: _Axes) -> str:
    step = _nice_step((axes.high - axes.low) / 7)
    y = _TOP + _PLOT_HEIGHT + 18
    ticks = []
    for index in range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1):
        text = f"{index * step:.6g}"
        ticks.append(
            f'<text class="tick" x="{axes.x(index * step):.1f}" y="{y}" text-anchor="middle">'
            f"{text}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    ticks.append(
        f'<text class="tick" x="{middle:.0f}" y="{y + 18}" text-anchor="middle">'
        "score, larger = more unusual</text>"
    )
    return "".join(ticks)


def _limit(axes: _Axes, threshold: float) -> str:
    """Draw the decision limit; its words stand where there is room."""
    x = axes.x(threshold)
    anchor, shift = ("end", -6) if x > _WIDTH * 0.7 else ("start", 6)
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 18}" '
        f'y2="{_TOP + _PLOT_HEIGHT}"/><text class="limit-text" x="{x + shift:.1f}" '
        f'y="{_TOP - 8}" text-anchor="{anchor}">decision limit {threshold:.4g}</text>'
    )


def _nice_step(rough: float) -> float:
    """Return the next larger 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(rough, _SMALLEST_STEP)))
    return next((power * nice for nice in (1, 2, 5) if power * nice >= rough), 10 * power)
