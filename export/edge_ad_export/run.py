"""What the exporter needs of a run folder besides the detector: figures and real pictures."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad_runtime.errors import DataError

MAX_PER_LABEL = 32
"""Pictures of each kind, good and anomalous, that are compared."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Figures of `metrics.json`, and pictures of the run that still lie where they did."""

    metrics: dict[str, Any]
    pictures: list[Path]


def read_run(run: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        DataError: a file is missing or damaged, or none of the pictures is there any more.
    """
    try:
        metrics = json.loads((run / "metrics.json").read_text())
        if not isinstance(metrics, dict) or "map_threshold" not in metrics:
            raise ValueError("metrics.json lacks the figures of a run")
        rows = [row for name in ("scores.csv", "held_out.csv") for row in _rows(run / name)]
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run written by `edge-ad train` in {run}, "
            f"{Path(error.filename).name} is missing: train it, or give another run"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(f"the files of the run {run} are damaged ({error}): train again") from error
    good = [path for path, label in rows if label == "good" and path.is_file()]
    anomalous = [path for path, label in rows if label != "good" and path.is_file()]
    if not good:
        raise DataError(
            f"none of the {len(rows)} pictures that {run} was tried on is there any more "
            f"(first: {rows[0][0] if rows else 'none listed'}): "
            "bring them back, the export is proven on them"
        )
    return RunRecord(metrics=metrics, pictures=_spread(good) + _spread(anomalous))


def _rows(path: Path) -> list[tuple[Path, str]]:
    with path.open(newline="") as file:
        return [(Path(row["path"]), row["label"]) for row in csv.DictReader(file)]


def _spread(paths: list[Path]) -> list[Path]:
    """Take evenly spaced ones, so that every kind of defect is among them."""
    step = max(len(paths) / MAX_PER_LABEL, 1.0)
    return [paths[int(index * step)] for index in range(min(len(paths), MAX_PER_LABEL))]
