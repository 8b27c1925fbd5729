"""`edge-ad runs`: all runs as a table."""

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.options import require, results_option, terminal_columns
from edge_ad_runtime.errors import DataError

logger = logging.getLogger(__name__)

_COLUMNS = (
    ("category", "category"),
    ("method", "method"),
    ("trained", "trained"),
    ("good", "n_train"),
    ("limit", "threshold"),
    ("promised", "false_alarm_rate"),
    ("image AUROC", "image_auroc"),
    ("pixel AUROC", "pixel_auroc"),
    ("false alarms", "test_false_alarm_rate"),
    ("missed", "test_miss_rate"),
    ("exported", "exported"),
)
"""Heading and key of each column."""

_DROPPED = ("good", "pixel AUROC", "promised", "trained", "exported", "limit")
"""What a narrow terminal does not show, in this order."""

_SHARES = (
    "false_alarm_rate",
    "image_auroc",
    "pixel_auroc",
    "test_false_alarm_rate",
    "test_miss_rate",
)


@click.command()
@results_option("Where to look for runs.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs as a JSON array.")
def runs(results: Path, as_json: bool) -> None:
    """List all runs below the folder of results, the newest first.

    False alarms and missed defects are those of the run's own test pictures. A run that cannot be
    read is named on stderr.
    """
    require(("cv2",), extra="cpu", purpose="listing runs")
    from edge_ad.runs import all_runs

    found = []
    for folder in all_runs(results):
        try:
            found.append(_entry(folder))
        except DataError as error:
            logger.error("%s", error)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif found:
        click.echo(_table(found, terminal_columns()))
    else:
        click.echo(f"no runs below {results}: train one with `edge-ad train`")


def _entry(folder: Path) -> dict[str, Any]:
    """Return what the table shows of a run.

    Raises:
        DataError: its figures cannot be read.
    """
    from edge_ad.runs import DETECTOR_FILE, model_file, read_metrics

    metrics = read_metrics(folder).to_json()
    trained = datetime.fromtimestamp((folder / DETECTOR_FILE).stat().st_mtime).astimezone()
    own = {
        "run": str(folder),
        "trained": trained.isoformat(sep=" ", timespec="minutes"),
        "exported": model_file(folder).is_file(),
    }
    return own | {key: metrics[key] for _, key in _COLUMNS if key in metrics}


def _table(found: list[dict[str, Any]], width: int | None) -> str:
    """Return the table, without columns that do not fit in `width` characters; None: with all."""
    columns = {
        heading: [heading, *(_shown(key, entry[key]) for entry in found)]
        for heading, key in _COLUMNS
    }
    widths = {heading: max(map(len, cells)) for heading, cells in columns.items()}
    dropped = []
    for heading in _DROPPED:
        if width is None or sum(widths.values()) + 2 * (len(widths) - 1) <= width:
            break
        del widths[heading]
        dropped.append(heading)
    rows = [
        "  ".join(columns[heading][row].ljust(widths[heading]) for heading in widths).rstrip()
        for row in range(len(found) + 1)
    ]
    if dropped:
        rows.append(f"The terminal is too narrow for: {', '.join(dropped)}")
    return "\n".join(rows)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in _SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
