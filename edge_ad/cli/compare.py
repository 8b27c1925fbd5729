"""`edge-ad compare`: every method on every class, as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.config_options import config_option
from edge_ad.cli.options import data_root_option, prepare_training, results_option
from edge_ad.config import METHODS, PRESETS, DetectorConfig
from edge_ad.option import parse_names
from edge_ad_runtime.errors import ConfigError, EdgeAdError


def _joined(
    context: click.Context, option: click.Parameter, given: Sequence[tuple[str, ...]]
) -> tuple[str, ...]:
    return tuple(name for names in given for name in names)


@click.command()
@click.option(
    "--methods",
    type=parse_names,
    multiple=True,
    callback=_joined,
    metavar="NAME,...",
    default=[",".join(METHODS)],
    show_default=True,
)
@click.option(
    "--classes",
    type=parse_names,
    multiple=True,
    callback=_joined,
    metavar="all|NAME,...",
    default=["all"],
    show_default=True,
    help="all: every class folder below --data-root.",
)
@data_root_option
@results_option("Where runs, finished cells and the tables are written.")
@click.option(
    "--preset",
    type=click.Choice(PRESETS),
    default="default",
    show_default=True,
    help="As for `edge-ad train`.",
)
@config_option(DetectorConfig, "backbone")
@config_option(DetectorConfig, "weights")
@config_option(DetectorConfig, "size")
@config_option(DetectorConfig, "device")
@config_option(DetectorConfig, "seed")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many cells to train at the same time.",
)
@click.option("--again", is_flag=True, help="Run finished cells again.")
@click.option("--json", "as_json", is_flag=True, help="Print benchmark.json instead of the table.")
def compare(
    methods: tuple[str, ...],
    classes: tuple[str, ...],
    data_root: Path,
    results: Path,
    preset: str,
    workers: int,
    again: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train every method on every class, and compare them.

    Writes benchmark.md, .csv and .json into the folder of results. A cell (one method on one class)
    that was finished with the same settings on the same pictures is not run again. Cells that fail
    are reported at the end, with exit code 1; the others are kept.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise click.BadParameter(
            f"expected one or more of {', '.join(METHODS)}, got {unknown[0]}",
            param_hint="--methods",
        )
    prepare_training("the comparison")
    from edge_ad.comparison.cells import Cell, Settings, run_cells
    from edge_ad.comparison.table import write_tables
    from edge_ad.data import list_categories
    from edge_ad_runtime.files import make_writable

    categories = list_categories(data_root) if classes == ("all",) else classes
    if not categories:
        raise ConfigError(f"found no class folder below {data_root}: check --data-root")
    given = {name: value for name, value in options.items() if value is not None}
    settings = Settings(preset=preset, options=given)
    cells = [Cell(method=method, category=name) for name in categories for method in methods]
    make_writable(results)
    outcomes = run_cells(cells, settings, data_root, results, workers=workers, again=again)
    table, _, document = write_tables(results, outcomes, settings)
    text = (document if as_json else table).read_text(encoding="utf-8", errors="surrogateescape")
    click.echo(text if as_json else f"{text}\nwritten to {table}")
    failed = [
        f"{item.cell.category}/{item.cell.method}: {item.error}" for item in outcomes if item.error
    ]
    if failed:
        raise EdgeAdError(f"{len(failed)} of {len(cells)} cells failed: " + "; ".join(failed))
