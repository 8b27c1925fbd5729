"""What each option of a detector costs and gains in ROC-AUC, one option changed at a time.

python benchmarks/defaults.py padim --data-root DIR --classes bottle,transistor,commutator
"""

import time
from pathlib import Path
from typing import Any

import click
import torch

from edge_ad.data import Category, load_category
from edge_ad.models import DETECTORS

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "padim": [
        {},
        {"patch_size": 1},
        {"epsilon": 0.01},
        {"epsilon": 0.01, "patch_size": 1},
        {"dims": 100},
        {"grid_stride": 4},
        {"layers": ["stage3", "stage4"]},
    ],
    "patchcore": [
        {"coreset": 0.01},
        {"coreset": 0.1},
        {"coreset": 0.01, "neighbours": 1},
        {"coreset": 0.01, "neighbours": 3},
    ],
    "spade": [
        {},
        {"dims": "all"},
        {"dims": 32},
        {"patch_size": 1},
        {"k": 5},
        {"gallery_rule": "full", "k": 5},
    ],
}


@click.command()
@click.argument("method", type=click.Choice(list(VARIANTS)))
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor,commutator", show_default=True)
def main(method: str, data_root: Path, classes: str) -> None:
    """Fit each variant on each class and print a Markdown table."""
    categories = [load_category(name, data_root) for name in classes.split(",")]
    click.echo(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, efficientnet_lite0\n"
    )
    header = [f"{item.name} image | {item.name} pixel" for item in categories]
    click.echo(f"| {method} | {' | '.join(header)} | seconds |")
    click.echo("|---" * (2 * len(categories) + 2) + "|")
    for variant in VARIANTS[method]:
        started = time.perf_counter()
        figures = [figure for item in categories for figure in evaluate(method, variant, item)]
        name = ", ".join(f"{key} {value}" for key, value in variant.items()) or "default"
        seconds = time.perf_counter() - started
        click.echo(f"| {name} | {' | '.join(figures)} | {seconds:.0f} |")


def evaluate(method: str, variant: dict[str, Any], category: Category) -> tuple[str, str]:
    """Return image and pixel ROC-AUC in percent."""
    metrics = DETECTORS[method](**variant).fit(category.train).evaluate(category.test).metrics
    image, pixel = metrics.image_auroc, metrics.pixel_auroc
    return f"{100 * image:.2f}" if image else "-", f"{100 * pixel:.2f}" if pixel else "-"


if __name__ == "__main__":
    main()
