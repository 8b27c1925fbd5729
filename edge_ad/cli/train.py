"""`edge-ad train METHOD`: pictures of good parts in, a run folder out."""

import json
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import prepare_training
from edge_ad.cli.train_options import TrainOptions, parse_coreset, parse_dims, shared_options

if TYPE_CHECKING:
    from edge_ad.models import Detector
    from edge_ad.train import Run


@click.group()
def train() -> None:
    """Fit a detector on pictures of good parts; writes results/CLASS/METHOD/."""
    prepare_training("training")


@train.command()
@shared_options
@click.option(
    "--dims",
    type=parse_dims,
    metavar="N|all",
    help="Channels drawn once. Default: all up to 200, or 100.",
)
@click.option("--epsilon", type=float, default=0.1, show_default=True, help="Added to variances.")
@click.option(
    "--patch-size", type=int, default=3, show_default=True, help="Local average; paper: 1."
)
def padim(options: TrainOptions, dims: int | str | None, epsilon: float, patch_size: int) -> None:
    """PaDiM: one Gaussian per position (Defard et al. 2020)."""
    from edge_ad.models import PaDiM

    detector = PaDiM(
        backbone=options.backbone,
        layers=options.layers,
        weights=options.weights,
        input_size=options.input_size,
        resize=options.resize,
        device=options.device,
        seed=options.seed,
        sigma=options.sigma,
        grid_stride=options.grid_stride,
        dims=dims,
        epsilon=epsilon,
        patch_size=patch_size,
    )
    _run(detector, options)


@train.command()
@shared_options
@click.option(
    "--coreset",
    type=parse_coreset,
    metavar="SHARE|N",
    default="0.1",
    show_default=True,
    help="Share of the patches to keep (with a point), or their number.",
)
@click.option(
    "--neighbours", type=int, default=9, show_default=True, help="Of the re-weighting; 1: none."
)
def patchcore(options: TrainOptions, coreset: float | int, neighbours: int) -> None:
    """PatchCore: nearest patch in a coreset of good ones (Roth et al. 2021)."""
    from edge_ad.models import PatchCore

    detector = PatchCore(
        backbone=options.backbone,
        layers=options.layers,
        weights=options.weights,
        input_size=options.input_size,
        resize=options.resize,
        device=options.device,
        seed=options.seed,
        sigma=options.sigma,
        grid_stride=options.grid_stride,
        coreset=coreset,
        neighbours=neighbours,
    )
    _run(detector, options)


@train.command()
@shared_options
@click.option("--k", type=int, default=50, show_default=True, help="Pictures to retrieve.")
@click.option(
    "--gallery",
    "gallery_rule",
    type=click.Choice(["position", "full"]),
    default="position",
    show_default=True,
    help="Compare with patches at the same position, or at any (the paper).",
)
@click.option(
    "--dims", type=parse_dims, metavar="N|all", help="Channels of a stored patch. Default: 64."
)
@click.option(
    "--patch-size", type=int, default=3, show_default=True, help="Local average; paper: 1."
)
def spade(
    options: TrainOptions, k: int, gallery_rule: str, dims: int | str | None, patch_size: int
) -> None:
    """SPADE: nearest pictures, then nearest patches (Cohen & Hoshen 2020)."""
    from edge_ad.models import SPADE

    detector = SPADE(
        backbone=options.backbone,
        layers=options.layers,
        weights=options.weights,
        input_size=options.input_size,
        resize=options.resize,
        device=options.device,
        seed=options.seed,
        sigma=options.sigma,
        grid_stride=options.grid_stride,
        k=k,
        gallery_rule=gallery_rule,
        dims=dims,
        patch_size=patch_size,
    )
    _run(detector, options)


def _run(detector: "Detector", options: TrainOptions) -> None:
    """Train on the category and print where the run lies and what it reached."""
    from edge_ad.data import load_category
    from edge_ad.train import train as train_detector

    category = load_category(options.category, options.data_root, skip_bad=options.skip_bad)
    run = train_detector(detector, category, options.results)
    if options.as_json:
        click.echo(json.dumps(run.metrics | {"run": str(run.folder)}))
    else:
        click.echo(summary(run))


def summary(run: "Run") -> str:
    """Return the few lines that a person wants to see after training."""
    metrics = run.metrics
    lines = [
        f"{metrics['method']} on {metrics['category']}: {metrics['n_train']} good pictures fitted "
        f"in {metrics['fit_seconds']:.1f} s, input {metrics['input_size'][0]}x"
        f"{metrics['input_size'][1]}, {metrics['n_skipped']} skipped"
    ]
    for name in ("image_auroc", "pixel_auroc", "pixel_pro"):
        if metrics[name] is not None:
            lines.append(f"{name:<12} {metrics[name]:.4f}")
    if metrics["n_test_anomalous"] == 0:
        lines.append("no anomalous test pictures: no AUROC, only the threshold")
    lines += [
        f"threshold    {metrics['threshold']:.4f} ({metrics['threshold_rule']})",
        f"false alarms {100 * metrics['false_alarm_rate']:.1f} % of good parts are to be expected",
        f"run          {run.folder}",
        f"report       {run.folder / 'report.html'}",
    ]
    return "\n".join(lines)
