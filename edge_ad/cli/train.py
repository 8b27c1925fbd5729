"""`edge-ad train METHOD`: pictures of good parts in, a run folder out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.config_options import config_options
from edge_ad.cli.options import data_root_option, prepare_training, results_option
from edge_ad.config import CONFIGS, DetectorConfig

if TYPE_CHECKING:
    from edge_ad.runs import Run


@click.group()
def train() -> None:
    """Fit a detector on pictures of good parts; writes results/CLASS/METHOD/."""
    prepare_training("training")


def _method_command(config_class: type[DetectorConfig]) -> click.Command:
    """Return `edge-ad train METHOD`; its options are those of the detector and of every run."""

    @click.command(config_class.method, help=config_class.__doc__)
    @click.option("--class", "category", required=True, help="Folder of the product's pictures.")
    @data_root_option
    @results_option("Where runs are written.")
    @config_options(config_class)
    @click.option("--skip-bad", is_flag=True, help="Leave unreadable pictures out and count them.")
    @click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
    def command(
        config: DetectorConfig,
        category: str,
        data_root: Path,
        results: Path,
        skip_bad: bool,
        as_json: bool,
    ) -> None:
        from edge_ad.data import load_category

        # Before PyTorch is loaded, so that a typing mistake is told at once.
        pictures = load_category(category, data_root, skip_bad=skip_bad)
        from edge_ad.models import create
        from edge_ad.train import train as train_detector

        run = train_detector(create(config), pictures, results)
        if as_json:
            click.echo(json.dumps(run.metrics.to_json() | {"run": str(run.folder)}))
        else:
            click.echo(summary(run))

    return command


for _config in CONFIGS.values():
    train.add_command(_method_command(_config))


def summary(run: "Run") -> str:
    """Return the few lines that a person wants to see after training."""
    metrics = run.metrics
    lines = [
        f"{metrics.method} on {metrics.category}: {metrics.n_train} good pictures fitted "
        f"in {metrics.fit_seconds:.1f} s, input {metrics.input_size[0]}x"
        f"{metrics.input_size[1]}, {metrics.n_skipped} skipped"
    ]
    for name in ("image_auroc", "pixel_auroc", "pixel_pro"):
        value = getattr(metrics, name)
        if value is not None:
            lines.append(f"{name:<12} {value:.4f}")
    if metrics.n_test_anomalous == 0:
        lines.append("no anomalous test pictures: no AUROC, only the threshold")
    lines += [
        f"threshold    {metrics.threshold:.4f} ({metrics.threshold_rule})",
        f"false alarms {100 * metrics.false_alarm_rate:.1f} % of good parts are to be expected",
        f"run          {run.folder}",
        f"report       {run.folder / 'report.html'}",
    ]
    return "\n".join(lines)
