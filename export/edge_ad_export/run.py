"""What the exporter needs of a run folder besides the detector: figures and real pictures."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.data import Sample
from edge_ad_runtime.errors import DataError

GOOD = "good"

MAX_PER_LABEL = 64
"""Pictures of each kind, good and anomalous, that are compared."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run says about itself.

    Attributes:
        metrics: figures of `metrics.json`.
        samples: pictures of the run that still lie where they did, at most `MAX_PER_LABEL` of a
            kind.
        held_out: the good pictures that gave the threshold; empty where one is missing.
    """

    metrics: dict[str, Any]
    samples: list[Sample]
    held_out: list[Sample]


def read_run(run: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        DataError: a file is missing or damaged, or none of the pictures is there any more.
    """
    try:
        metrics = json.loads((run / "metrics.json").read_text())
        if not isinstance(metrics, dict) or "map_threshold" not in metrics:
            raise ValueError("metrics.json lacks the figures of a run")
        held_out = _rows(run / "held_out.csv")
        rows = _rows(run / "scores.csv") + held_out
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run written by `edge-ad train` in {run}, "
            f"{Path(error.filename).name} is missing: train it, or give another run"
        ) from error
    except (ValueError, KeyError) as error:
        raise DataError(f"the files of the run {run} are damaged ({error}): train again") from error
    there = [row for row in rows if row[0].is_file()]
    good = [Sample(path=path) for path, label in there if label == GOOD]
    anomalous = [
        Sample(path=path, label=label, mask_path=_mask_of(path, label))
        for path, label in there
        if label != GOOD
    ]
    if not good:
        raise DataError(
            f"none of the {len(rows)} pictures that {run} was tried on is there any more "
            f"(first: {rows[0][0] if rows else 'none listed'}): "
            "bring them back, the export is proven on them"
        )
    whole = all(path.is_file() for path, _ in held_out)
    return RunRecord(
        metrics=metrics,
        samples=_spread(good) + _spread(anomalous),
        held_out=[Sample(path=path) for path, _ in held_out] if whole else [],
    )


def _rows(path: Path) -> list[tuple[Path, str]]:
    with path.open(newline="") as file:
        return [(Path(row["path"]), row["label"]) for row in csv.DictReader(file)]


def _mask_of(path: Path, label: str) -> Path | None:
    """Find the mask of `test/DEFECT/NAME.png` where MVTec's layout has it."""
    folder = path.parents[2] / "ground_truth" / label if len(path.parents) > 2 else path.parent
    masks = [folder / f"{path.stem}{ending}.png" for ending in ("_mask", "")]
    return next((mask for mask in masks if mask.is_file() and mask != path), None)


def _spread(samples: list[Sample]) -> list[Sample]:
    """Take evenly spaced ones, so that every kind of defect is among them."""
    step = max(len(samples) / MAX_PER_LABEL, 1.0)
    return [samples[int(index * step)] for index in range(min(len(samples), MAX_PER_LABEL))]
