"""What other decision limits would do: false alarms against defects caught, as figures and SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.data import ScoredSample
from edge_ad.run_metrics import decision_rates
from edge_ad_runtime.model.calibration import Calibration, percent

LOWEST_RATE, HIGHEST_RATE = 0.001, 0.1
TABLE_RATES = (0.001, 0.003, 0.01, 0.03, 0.1)

_N_POINTS = 61
_WIDTH, _HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 16, 48


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


def choose(
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


def table_choices(calibration: Calibration, scored: Sequence[ScoredSample]) -> list[Choice]:
    """Return a few round rates, with the promised one among them."""
    promised = calibration.rate
    others = [rate for rate in TABLE_RATES if not math.isclose(rate, promised, rel_tol=0.05)]
    return choose(calibration, scored, sorted([*others, promised]))


def draw_trade_off(calibration: Calibration, scored: Sequence[ScoredSample]) -> str:
    """Return an SVG element; its colours come from the page's style sheet."""
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, _N_POINTS).tolist()
    choices = choose(calibration, scored, rates)
    (chosen,) = choose(calibration, scored, [calibration.rate])
    caught = [(_x(one.rate), _y(one.caught)) for one in choices]
    alarms = [
        (_x(one.rate), _y(one.false_alarms)) for one in choices if one.false_alarms is not None
    ]
    parts = [_axes(), _path("caught", caught), _path("alarms", alarms), _point(chosen)]
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Share of '
        f'defects caught against the promised false-alarm rate">{"".join(parts)}</svg>'
    )


def _x(rate: float) -> float:
    """Place a rate on a logarithmic axis; rates beyond its ends lie on them."""
    inside = min(max(rate, LOWEST_RATE), HIGHEST_RATE)
    share = math.log(inside / LOWEST_RATE) / math.log(HIGHEST_RATE / LOWEST_RATE)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _path(css_class: str, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{css_class}" points="{steps}"/>'


def _axes() -> str:
    rows = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, kind = _y(share), "axis" if share == 0 else "grid"
        rows.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{100 * share:.0f} %</text>"
        )
    for rate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1):
        rows.append(
            f'<text class="tick" x="{_x(rate):.1f}" y="{_HEIGHT - _BOTTOM + 18}" '
            f'text-anchor="middle">{percent(rate)}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    rows.append(
        f'<text class="tick" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "promised false-alarm rate</text>"
    )
    return "".join(rows)


def _point(chosen: Choice) -> str:
    """Draw the limit in force, with its words where there is room."""
    x, y = _x(chosen.rate), _y(chosen.caught)
    anchor, shift = ("end", -10) if x > _WIDTH * 0.55 else ("start", 10)
    # Between the two curves there is room.
    words = (y + _y(chosen.false_alarms or 0.0)) / 2
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        f'<text class="limit-text" x="{x + shift:.1f}" y="{words:.1f}" text-anchor="{anchor}">'
        f"chosen: {percent(chosen.rate)}, {100 * chosen.caught:.0f} % caught</text>"
    )
