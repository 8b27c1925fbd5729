"""One training run: fit, threshold from held-out good pictures, evaluate, write the run folder."""

import logging
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from edge_ad import __version__
from edge_ad.data import Category, Dataset
from edge_ad.evaluate import Evaluation, decision_rates
from edge_ad.models import Detector
from edge_ad.report import Report, write_report
from edge_ad.runs import DETECTOR_FILE, REPORT_FILE, GoodPicture, Run, RunMetrics, run_folder
from edge_ad.threshold import GoodScores
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import make_writable
from edge_ad_runtime.model.info import Limits

logger = logging.getLogger(__name__)

HELD_OUT = 0.1
"""Share of the good training pictures that the fit never sees; they give the threshold."""

MIN_PICTURES = 3
"""Two to fit, one held out: fewer cannot even be tried."""

FEW_PICTURES = 20


def train(detector: Detector, category: Category, results: Path) -> Run:
    """Fit the detector on a category and write `results/<category>/<method>/`.

    The folder's files are replaced only when all of them are ready; an exported model file in it
    stays as it is.

    Raises:
        DataError: too few or unreadable pictures, or a results folder that cannot be written.
    """
    folder = run_folder(results, category.name, detector.method)
    make_writable(folder)
    fit_part, held_out_part = _split(category.train, detector.config.seed)
    content_hash = category.train.content_hash()
    started = time.perf_counter()
    detector.fit(fit_part)
    fit_seconds = time.perf_counter() - started
    good, limits = _score_held_out(detector, held_out_part)
    evaluation = detector.evaluate(category.test) if len(category.test) else None
    metrics = RunMetrics(
        **vars(limits),
        **_test_figures(evaluation, limits.threshold),
        method=detector.method,
        category=category.name,
        backbone=detector.backbone.name,
        layers=tuple(layer.name for layer in detector.backbone.layers),
        input_size=detector.preprocessing.input_size,
        seed=detector.config.seed,
        device=str(detector.device),
        n_train=len(fit_part) - len(fit_part.bad),
        n_skipped=sum(len(part.bad) for part in (fit_part, held_out_part, category.test)),
        content_hash=content_hash,
        fit_seconds=round(fit_seconds, 3),
        versions={
            "edge-ad": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )
    scored = tuple(evaluation.samples) if evaluation else ()
    run = Run(folder=folder, metrics=metrics, scored=scored, good=tuple(good))
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        new = Path(temporary)
        detector.save(new)
        run.write(new)
        write_report(new / REPORT_FILE, Report(run=run, detector=detector))
        # detector.json goes last: it is what marks a complete run.
        for path in sorted(new.iterdir(), key=lambda path: path.name == DETECTOR_FILE):
            os.replace(path, folder / path.name)
    return run


def _split(good: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    if len(good) < MIN_PICTURES:
        raise DataError(
            f"expected at least {MIN_PICTURES} pictures of good parts, got {len(good)}: "
            "a few dozen are a start, 200 are good"
        )
    if len(good) < FEW_PICTURES:
        logger.warning(
            "only %d pictures of good parts: the threshold will be rough, 200 are good", len(good)
        )
    return good.split(HELD_OUT, seed)


def _score_held_out(detector: Detector, held_out: Dataset) -> tuple[list[GoodPicture], Limits]:
    scored: list[GoodPicture] = []
    good = GoodScores()
    for sample, prediction in detector.predictions(held_out, "held-out good pictures"):
        low, high = float(prediction.anomaly_map.min()), float(prediction.anomaly_map.max())
        scored.append(
            GoodPicture(path=sample.path, score=prediction.score, map_min=low, map_max=high)
        )
        good.add(prediction.score, prediction.anomaly_map)
    if not scored:
        raise DataError("no held-out good picture could be read: there is no threshold without one")
    return scored, good.limits()


def _test_figures(evaluation: Evaluation | None, threshold: float) -> dict[str, Any]:
    """Return the figures of the test split under their names in `RunMetrics`."""
    if evaluation is None:
        return {}
    figures = vars(evaluation.metrics).copy()
    n_good, n_anomalous = figures.pop("n_good"), figures.pop("n_anomalous")
    false_alarm_rate, miss_rate = decision_rates(evaluation.samples, threshold)
    return figures | {
        "test_false_alarm_rate": false_alarm_rate,
        "test_miss_rate": miss_rate,
        "n_test_good": n_good,
        "n_test_anomalous": n_anomalous,
    }
