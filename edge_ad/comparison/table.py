"""The tables of a comparison: Markdown for people, CSV and JSON for programs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from types import MappingProxyType

from edge_ad.comparison.cells import CellResult, Settings
from edge_ad.comparison.published import (
    IMAGE_AUROC,
    IMAGE_AUROC_MEAN,
    PIXEL_AUROC,
    PIXEL_AUROC_MEAN,
)
from edge_ad.config import CONFIGS
from edge_ad.data import MVTEC_CLASSES
from edge_ad_runtime.files import write_whole

COLUMNS = (
    "category",
    "method",
    "image_auroc",
    "pixel_auroc",
    "pixel_pro",
    "image_ap",
    "image_f1",
    "test_false_alarm_rate",
    "test_miss_rate",
    "fit_seconds",
    "n_train",
    "n_test_good",
    "n_test_anomalous",
    "error",
)


def write_tables(results: Path, outcomes: Sequence[CellResult], settings: Settings) -> list[Path]:
    """Write `benchmark.md`, `.csv` and `.json` into the results folder; return their paths."""
    texts = {
        "benchmark.md": markdown(outcomes),
        "benchmark.csv": _csv(outcomes),
        "benchmark.json": json.dumps(
            {"settings": settings.to_json(), "cells": [_row(item) for item in outcomes]}, indent=2
        ),
    }
    results.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        # Paths in an error need not be valid UTF-8; they are written byte by byte.
        write_whole(results / name, text.encode(errors="surrogateescape"))
    return [results / name for name in texts]


def markdown(outcomes: Sequence[CellResult]) -> str:
    """Return a table for each figure: rows are classes, the last one the mean."""
    titled = {
        "Image level, ROC-AUC in percent": _table(
            outcomes, "image_auroc", IMAGE_AUROC, IMAGE_AUROC_MEAN
        ),
        "Pixel level, ROC-AUC in percent": _table(
            outcomes, "pixel_auroc", PIXEL_AUROC, PIXEL_AUROC_MEAN
        ),
        "Good test pictures called anomalous, in percent": _table(
            outcomes, "test_false_alarm_rate"
        ),
        "Defective test pictures missed, in percent": _table(outcomes, "test_miss_rate"),
    }
    return "\n".join(f"{title}\n\n{table}\n" for title, table in titled.items())


def _table(
    outcomes: Sequence[CellResult],
    figure: str,
    published: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    published_mean: Mapping[str, float] = MappingProxyType({}),
) -> str:
    methods = list(dict.fromkeys(item.cell.method for item in outcomes))
    categories = list(dict.fromkeys(item.cell.category for item in outcomes))
    with_paper = bool(set(categories) & set(MVTEC_CLASSES))
    ours = {(item.cell.category, item.cell.method): _percent(item, figure) for item in outcomes}
    # A mean over other rows than its neighbour's misleads: only rows that all methods have count.
    complete = [
        name for name in categories if all(ours.get((name, one)) is not None for one in methods)
    ]
    header, rows = ["class"], [[name] for name in (*categories, f"mean of {len(complete)}")]
    for method in methods:
        mine = {name: ours.get((name, method)) for name in categories}
        compared = with_paper and method in published
        header.append(f"{CONFIGS[method].title} (edge-ad)" if compared else CONFIGS[method].title)
        _append(rows, [*mine.values(), _mean(mine, complete)])
        if compared:
            header.append(f"{CONFIGS[method].title} (paper)")
            paper = {name: published[method].get(name) for name in categories}
            all_classes = set(complete) == set(MVTEC_CLASSES)
            average = published_mean[method] if all_classes else _mean(paper, complete)
            _append(rows, [*paper.values(), average])
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _append(rows: list[list[str]], column: Sequence[float | None]) -> None:
    for row, value in zip(rows, column, strict=True):
        row.append("-" if value is None else f"{value:.1f}")


def _percent(item: CellResult, figure: str) -> float | None:
    value = getattr(item.metrics, figure, None)
    return None if value is None else 100 * float(value)


def _mean(column: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """Average the rows of these names; None where one of them is missing."""
    values = [value for name in names if (value := column[name]) is not None]
    return mean(values) if values and len(values) == len(names) else None


def _row(item: CellResult) -> dict[str, object]:
    figures = {name: getattr(item.metrics, name, None) for name in COLUMNS}
    return figures | asdict(item.cell) | {"error": item.error}


def _csv(outcomes: Sequence[CellResult]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(item) for item in outcomes)
    return buffer.getvalue()
