"""Every method on every class: cells that are run once, in parallel if wanted, and a table."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from edge_ad.config import CONFIGS, DetectorConfig
from edge_ad.data import load_category
from edge_ad.models import create
from edge_ad.progress import Bar
from edge_ad.run_metrics import RunMetrics
from edge_ad.train import train
from edge_ad_runtime.errors import DataError, EdgeAdError
from edge_ad_runtime.files import write_whole

logger = logging.getLogger(__name__)

CELL_FOLDER = "benchmark-cells"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all cells of a comparison share.

    Attributes:
        preset: one of `edge_ad.config.PRESETS`.
        options: fields of `DetectorConfig` in place of the preset's and the defaults.
    """

    preset: str = "default"
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(self, method: str) -> DetectorConfig:
        """Return the configuration of a method.

        Raises:
            ConfigError: a value that is not accepted.
        """
        config = CONFIGS[method]
        return config(**config.preset(self.preset) | dict(self.options))

    def to_json(self) -> dict[str, Any]:
        """Return the preset and every shared option; null: left to preset and default."""
        names = [item.name for item in fields(DetectorConfig)]
        return {"preset": self.preset} | {name: self.options.get(name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one class."""

    method: str
    category: str


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The figures of a cell (those of `metrics.json`), or why there are none."""

    cell: Cell
    metrics: RunMetrics | None
    error: str | None = None


def run_cells(
    cells: Sequence[Cell],
    settings: Settings,
    data_root: Path,
    results: Path,
    *,
    workers: int = 1,
    again: bool = False,
) -> list[CellResult]:
    """Run all cells that have not been run with these settings on these pictures.

    The cells go through joblib: a backend that was chosen with `joblib.parallel_config` (threads,
    Dask, Ray) is used in place of local processes. A cell that fails does not stop the others.

    Args:
        cells: what to run.
        settings: the same for all.
        data_root: where the class folders lie.
        results: where runs, and the record of finished cells, are written.
        workers: cells at a time.
        again: run finished cells again.

    Returns:
        One result for each cell, in the order of `cells`.
    """

    @cache  # for all cells of a class
    def content(name: str) -> str:
        return load_category(name, data_root).content_hash()

    known = {} if again else {cell: _finished(cell, settings, content, results) for cell in cells}
    todo = [cell for cell in cells if known.get(cell) is None]
    if len(todo) < len(cells):
        logger.warning("%d of %d cells were finished before", len(cells) - len(todo), len(cells))
    # "generator": results come as they are finished, so that the bar moves.
    outcomes = Parallel(n_jobs=workers, return_as="generator")(
        delayed(run_cell)(cell, settings, data_root, results) for cell in todo
    )
    new = {}
    with Bar(len(todo), "compare", unit="cell") as bar:
        for result in outcomes:
            new[result.cell] = result
            bar.update()
    return [new.get(cell) or CellResult(cell=cell, metrics=known[cell]) for cell in cells]


def run_cell(cell: Cell, settings: Settings, data_root: Path, results: Path) -> CellResult:
    """Train and evaluate one cell, and record its figures."""
    try:
        category = load_category(cell.category, data_root)
        content = category.content_hash()  # before, so that a later change is noticed
        metrics = train(create(settings.config(cell.method)), category, results).metrics
    # What a cell can die of: our own refusals, and what PyTorch raises when memory runs out.
    except (EdgeAdError, OSError, RuntimeError, MemoryError) as error:
        return CellResult(cell=cell, metrics=None, error=f"{type(error).__name__}: {error}")
    path = _record(cell, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "settings": settings.to_json(),
        "content_hash": content,
        "metrics": metrics.to_json(),
    }
    write_whole(path, json.dumps(document, indent=2).encode())
    return CellResult(cell=cell, metrics=metrics)


def _record(cell: Cell, results: Path) -> Path:
    return results / CELL_FOLDER / f"{cell.category}-{cell.method}.json"


def _finished(
    cell: Cell, settings: Settings, content: Callable[[str], str], results: Path
) -> RunMetrics | None:
    """Return the figures of a cell with the same settings and pictures, or None."""
    path = _record(cell, results)
    try:
        document = json.loads(path.read_text())
        if document["settings"] != settings.to_json():
            return None
        metrics = RunMetrics.from_json(json.dumps(document["metrics"]), path)
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, DataError) as error:
        logger.warning("%s cannot be used (%s): running the cell again", path, error)
        return None
    try:
        if document.get("content_hash") == content(cell.category):
            return metrics
    except (EdgeAdError, OSError):
        return None  # running the cell tells what is wrong with its pictures
    logger.warning(
        "%s was measured on other pictures than those of %s now, or by an earlier version, which "
        "did not record them: running the cell again",
        cell.method,
        cell.category,
    )
    return None
