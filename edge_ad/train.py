"""One training run: fit, threshold from held-out good pictures, evaluate, write the run folder."""

import csv
import io
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edge_ad import __version__
from edge_ad.data import Category, Dataset
from edge_ad.evaluate import Evaluation, ScoredSample, decision_rates
from edge_ad.models import Detector
from edge_ad.report import Report, write_report
from edge_ad.runs import run_folder
from edge_ad.threshold import GoodScores
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import make_writable
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import Limits

logger = logging.getLogger(__name__)

HELD_OUT = 0.1
"""Share of the good training pictures that the fit never sees; they give the threshold."""

MIN_PICTURES = 3
"""Two to fit, one held out: fewer cannot even be tried."""

FEW_PICTURES = 20


@dataclass(frozen=True, kw_only=True)
class Run:
    """A written run: its folder and the figures of `metrics.json`."""

    folder: Path
    metrics: dict[str, Any]


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
    held_out, limits = _score_held_out(detector, held_out_part)
    evaluation = detector.evaluate(category.test) if len(category.test) else None
    metrics = _metrics(detector, evaluation, limits) | {
        "category": category.name,
        "n_train": len(fit_part) - len(fit_part.bad),
        "n_held_out": len(held_out),
        "n_skipped": sum(len(part.bad) for part in (fit_part, held_out_part, category.test)),
        "content_hash": content_hash,
        "fit_seconds": round(fit_seconds, 3),
    }
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        new = Path(temporary)
        detector.save(new)
        (new / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False))
        scored = evaluation.samples if evaluation else []
        _write_scores(new / "scores.csv", scored, limits.threshold)
        _write_scores(new / "held_out.csv", held_out, limits.threshold)
        write_report(new / "report.html", _report(detector, metrics, scored, held_out))
        # detector.json goes last: it is what marks a complete run.
        for path in sorted(new.iterdir(), key=lambda path: path.name == "detector.json"):
            os.replace(path, folder / path.name)
    return Run(folder=folder, metrics=metrics)


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


def _score_held_out(detector: Detector, held_out: Dataset) -> tuple[list[ScoredSample], Limits]:
    scored: list[ScoredSample] = []
    good = GoodScores()
    for sample, prediction in detector.predictions(held_out, "held-out good pictures"):
        scored.append(ScoredSample(sample=sample, score=prediction.score))
        good.add(prediction.score, prediction.anomaly_map)
    if not scored:
        raise DataError("no held-out good picture could be read: there is no threshold without one")
    return scored, good.limits()


def _metrics(detector: Detector, evaluation: Evaluation | None, limits: Limits) -> dict[str, Any]:
    """Return the figures of metrics.json that do not depend on the training data."""
    figures: dict[str, Any] = {
        "method": detector.method,
        "backbone": detector.backbone.name,
        "layers": [layer.name for layer in detector.backbone.layers],
        "input_size": list(detector.preprocessing.input_size),
        "seed": detector.config.seed,
        "device": str(detector.device),
        **asdict(limits),
        "versions": {
            "edge-ad": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    return figures | _test_metrics(evaluation, limits.threshold)


def _test_metrics(evaluation: Evaluation | None, threshold: float) -> dict[str, Any]:
    names = ("image_auroc", "image_ap", "image_f1", "pixel_auroc", "pixel_pro")
    if evaluation is None:
        nothing: dict[str, Any] = dict.fromkeys((*names, "test_false_alarm_rate", "test_miss_rate"))
        return nothing | {"n_test_good": 0, "n_test_anomalous": 0}
    figures = asdict(evaluation.metrics)
    false_alarm_rate, miss_rate = decision_rates(evaluation.samples, threshold)
    return {name: figures[name] for name in names} | {
        "test_false_alarm_rate": false_alarm_rate,
        "test_miss_rate": miss_rate,
        "n_test_good": figures["n_good"],
        "n_test_anomalous": figures["n_anomalous"],
    }


def _write_scores(path: Path, scored: Sequence[ScoredSample], threshold: float) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "score", "verdict"])
    for item in scored:
        verdict = "anomalous" if item.score >= threshold else "good"
        writer.writerow([item.sample.path.resolve(), item.sample.label, item.score, verdict])
    path.write_text(buffer.getvalue())


def _report(
    detector: Detector,
    metrics: dict[str, Any],
    scored: list[ScoredSample],
    held_out: list[ScoredSample],
) -> Report:
    def predict(frame: Frame) -> tuple[float, Any]:
        prediction = detector.predict([frame])[0]
        return prediction.score, prediction.anomaly_map

    return Report(
        category=str(metrics["category"]),
        method=detector.method,
        metrics=metrics,
        scored=scored,
        held_out=held_out,
        predict=predict,
        preprocessing=detector.preprocessing,
    )
