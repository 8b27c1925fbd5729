"""Draw docs/decision-limit.svg: scores of fitted, new and defective parts, and the limit.

python docs/decision_limit.py --data-root DIR --class transistor
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from edge_ad import Dataset, PaDiM
from edge_ad.data import Sample, load_category
from edge_ad_runtime.model.calibration import percent

FITTED = 100
WIDTH, ROW_HEIGHT, LEFT, RIGHT, TOP = 900, 90, 190, 30, 50
COLOURS = ("#607080", "#2a7f4f", "#c0392b")


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--class", "category_name", default="transistor", show_default=True)
def main(data_root: Path, category_name: str) -> None:
    """Fit PaDiM on 100 good pictures drawn by chance and draw all scores."""
    category = load_category(category_name, data_root)
    everything = [*category.train, *category.test]
    good = [sample for sample in everything if not sample.anomalous]
    order = np.random.default_rng(0).permutation(len(good))
    fitted = Dataset([good[index] for index in order[:FITTED]])
    detector = PaDiM().fit(fitted)
    if detector.good is None:
        raise click.ClickException("expected at least 3 good pictures")
    calibration = detector.good.calibrate(0.01)
    rows = [
        ("good, fitted", detector.good.scores.tolist()),
        ("good, new", scores(detector, [good[index] for index in order[FITTED:]])),
        ("defective", scores(detector, [item for item in everything if item.anomalous])),
    ]
    text = draw(rows, calibration.limit(), f"limit for {percent(calibration.rate)} false alarms")
    Path(__file__).with_name("decision-limit.svg").write_text(text)
    for name, values in rows:
        share = np.mean(np.array(values) >= calibration.limit())
        click.echo(f"{name}: {len(values)} pictures, {share:.1%} at or above the limit")


def scores(detector: PaDiM, samples: Sequence[Sample]) -> list[float]:
    """Score pictures that the fit has not seen."""
    return [item.score for _, item in detector.predictions(Dataset(samples), "scores")]


def draw(rows: list[tuple[str, list[float]]], limit: float, title: str) -> str:
    """Return an SVG with a strip of dots for each row and a vertical line at the limit."""
    low = min(min(values) for _, values in rows)
    high = float(np.quantile(np.concatenate([values for _, values in rows]), 0.98))
    span = max(high, 1.2 * limit) - low

    def across(score: float) -> float:
        return LEFT + min(1.0, (score - low) / span) * (WIDTH - LEFT - RIGHT)

    generator = np.random.default_rng(0)
    height = TOP + ROW_HEIGHT * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="15">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for index, (name, values) in enumerate(rows):
        middle = TOP + ROW_HEIGHT * (index + 0.5)
        above = sum(value >= limit for value in values)
        parts.append(f'<text x="12" y="{middle - 4:.0f}" fill="#222">{name}</text>')
        parts.append(
            f'<text x="12" y="{middle + 16:.0f}" fill="#666">'
            f"{above} of {len(values)} stopped</text>"
        )
        for value, offset in zip(values, generator.uniform(-26, 26, len(values)), strict=True):
            parts.append(
                f'<circle cx="{across(value):.1f}" cy="{middle + offset:.1f}" r="3.5" '
                f'fill="{COLOURS[index]}" fill-opacity="0.6"/>'
            )
    x, bottom = across(limit), height - 40
    parts += [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 12}" y2="{bottom}" stroke="#222" '
        'stroke-width="2" stroke-dasharray="6 4"/>',
        f'<text x="{x:.1f}" y="{TOP - 20}" text-anchor="middle" fill="#222">{title}</text>',
        f'<text x="{LEFT}" y="{height - 12}" fill="#666">score: larger is more unusual; '
        "beyond the right edge dots stand at the edge</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
