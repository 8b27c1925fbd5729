"""`edge-ad train METHOD`: pictures of good parts in, a run folder out."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.config_options import config_options
from edge_ad.cli.options import (
    data_root_option,
    prepare_training,
    progress_file,
    progress_option,
    rate_option,
    results_option,
    wrapped,
)
from edge_ad.config import CONFIGS, DetectorConfig
from edge_ad_runtime.errors import ConfigError, EdgeAdError, counted

if TYPE_CHECKING:
    from edge_ad.data import Category
    from edge_ad.runs import Run

ALL = "all"


class _Methods(click.Group):
    """Says where the options belong if the method was left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            example = f"`edge-ad train fusion {error.option_name} ...`"
            raise click.UsageError(
                f"the method comes before the options, as in {example}", ctx
            ) from error


@click.group(cls=_Methods)
def train() -> None:
    """Fit a detector on pictures of good parts.

    Writes results/CLASS/METHOD/ below the current folder.
    """
    prepare_training("training")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What was asked for besides the detector."""

    names: tuple[str, ...]
    data_root: Path
    results: Path
    false_alarm_rate: float | None
    threshold_from: str
    exclude: tuple[str, ...]
    skip_bad: bool


def _method_command(config_class: type[DetectorConfig]) -> click.Command:
    """Return `edge-ad train METHOD`; its options are those of the detector and of every run."""
    doc = config_class.__doc__ or ""

    @click.command(config_class.method, help=doc, short_help=doc.partition(" (")[0].rstrip("."))
    @click.option(
        "--class",
        "names",
        required=True,
        multiple=True,
        metavar="NAME|PATH",
        help="Folder of the product's pictures: its name below --data-root, or its path. Give it "
        "several times to train several classes, or `all` for every folder below --data-root.",
    )
    @data_root_option
    @results_option("Where runs are written.")
    @rate_option(default="1 %, or 1/(n+1) if n good pictures are too few to show it")
    @click.option(
        "--threshold-from",
        type=click.Choice(["good", "f1"]),
        default="good",
        show_default=True,
        help="good: the limit that keeps the false-alarm rate on good parts. f1: the limit with "
        "the highest F1 on the labelled test pictures.",
    )
    @click.option(
        "--exclude",
        multiple=True,
        metavar="PATH|FILE",
        help="Leave out this training picture, or those listed in a text file, one per line.",
    )
    @config_options(config_class)
    @click.option("--skip-bad", is_flag=True, help="Leave out unreadable pictures, and count them.")
    @click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
    @progress_option
    def command(
        config: DetectorConfig, as_json: bool, progress: Path | None, **values: Any
    ) -> None:
        runs: list[Run] = []
        try:
            with progress_file(progress):
                for run in _runs(config, _Request(**values)):
                    runs.append(run)
        finally:
            if runs:  # those before a failure as well
                _print(runs, as_json=as_json)

    return command


def _print(runs: Sequence["Run"], *, as_json: bool) -> None:
    if not as_json:
        click.echo("\n\n".join(map(summary, runs)))
        return
    documents = [run.metrics.to_json() | {"run": str(run.folder)} for run in runs]
    click.echo(json.dumps(documents[0] if len(documents) == 1 else documents))


for _config in CONFIGS.values():
    train.add_command(_method_command(_config))


def _runs(config: DetectorConfig, request: _Request) -> Iterator["Run"]:
    """Train each class; what fails with one of several is reported at the end.

    Raises:
        EdgeAdError: a class cannot be trained.
    """
    # All that can be wrong with a request is reported before PyTorch is loaded.
    categories = _categories(request)
    from edge_ad.models import create
    from edge_ad.train import LimitOptions
    from edge_ad.train import train as train_detector

    limit = LimitOptions(
        false_alarm_rate=request.false_alarm_rate, from_f1=request.threshold_from == "f1"
    )
    failed = []
    for category in categories:
        try:
            yield train_detector(create(config), category, request.results, limit)
        except EdgeAdError as error:
            if len(categories) == 1:
                raise
            failed.append(f"{category.name}: {error}")
    if failed:
        raise EdgeAdError(f"{len(failed)} of {len(categories)} classes failed: {'; '.join(failed)}")


def _categories(request: _Request) -> list["Category"]:
    from edge_ad.data import list_categories, load_category

    names: Sequence[str] = tuple(dict.fromkeys(request.names))
    if ALL in names:
        names = list_categories(request.data_root)
        if not names:
            raise ConfigError(f"found no class folder below {request.data_root}: check --data-root")
    if request.exclude and len(names) > 1:
        raise ConfigError("expected --exclude with one class, got several: train them one by one")
    places = [_place(name, request.data_root) for name in names]
    categories = [load_category(name, root, skip_bad=request.skip_bad) for name, root in places]
    excluded = [name for entry in request.exclude for name in _listed(entry)]
    if excluded:
        (category,) = categories
        return [replace(category, train=category.train.without(excluded))]
    return categories


def _place(name: str, data_root: Path) -> tuple[str, Path]:
    """Return the name of a class and its data root; a path, such as `./cable`, holds both."""
    if name in (".", "..") or os.path.dirname(name):
        path = Path(os.path.abspath(name))
        return path.name, path.parent
    return name, data_root


def _listed(entry: str) -> list[str]:
    """Return the picture itself, or the rows of a text file that lists pictures.

    Raises:
        ConfigError: the file is not text.
    """
    from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES

    path = Path(entry)
    if path.suffix.lower() in PICTURE_SUFFIXES or not path.is_file():
        return [entry]
    try:
        # Editors on Windows begin a text in UTF-8 with a mark.
        rows = path.read_text(encoding="utf-8-sig").splitlines()
        return [row.strip() for row in rows if row.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected a text file that lists pictures, one a row, as --exclude {entry}: {error}"
        ) from error


def summary(run: "Run") -> str:
    """Return the few rows that a person wants to see after training."""
    metrics = run.metrics
    rows = [
        f"{metrics.method} on {metrics.category}: {metrics.n_train} good pictures fitted in "
        f"{metrics.fit_seconds:.1f} s, input {metrics.input_size[0]}x{metrics.input_size[1]}, "
        f"{counted(metrics.n_skipped, 'unreadable picture')} left out"
    ]
    for name in ("image_auroc", "pixel_auroc", "pixel_pro"):
        value = getattr(metrics, name)
        if value is not None:
            rows.append(f"{name:<12} {value:.4f}")
    if metrics.n_test_anomalous == 0:
        rows.append(
            "test         no defective test pictures: how many defects are found is unknown"
        )
    rows += [
        wrapped(f"limit        {metrics.threshold:.4g}: {metrics.threshold_rule}"),
        *test_rates(run),
    ]
    n_aside = metrics.calibration.n_set_aside if metrics.calibration else 0
    if n_aside:
        aside = (
            "the limit does without 1 picture that looks unlike the other good ones, but the "
            "detector has learnt it: leave it out with --exclude if it shows a defect. The report "
            "shows it"
            if n_aside == 1
            else f"the limit does without {n_aside} pictures that look unlike the other good ones, "
            "but the detector has learnt them: leave those that show a defect out with --exclude. "
            "The report shows them"
        )
        rows.append(wrapped(f"set aside    {aside}"))
    rows += [f"run          {run.folder}", f"report       {run.folder / 'report.html'}"]
    return "\n".join(rows)


def test_rates(run: "Run") -> Iterator[str]:
    """Say what the limit does to the test pictures."""
    metrics = run.metrics
    found = (
        ("false alarms", metrics.test_false_alarm_rate, metrics.n_test_good, "good"),
        ("missed", metrics.test_miss_rate, metrics.n_test_anomalous, "defective"),
    )
    for name, rate, count, kind in found:
        if rate is not None:
            yield (
                f"{name:<12} {100 * rate:.1f} % of the test pictures "
                f"({round(rate * count)} of {count} {kind} ones)"
            )
