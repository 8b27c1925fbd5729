"""One training run: fit all good pictures, set the limit, evaluate, write the run folder."""

import glob
import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from edge_ad import __version__
from edge_ad.data import Category, Dataset
from edge_ad.data.dataset import content_hash
from edge_ad.evaluate import Evaluation, best_f1_threshold
from edge_ad.models import Detector, read_detector
from edge_ad.models.leave_one_out import FEWEST, GoodScores
from edge_ad.models.saved import cannot_write
from edge_ad.report.page import write_report
from edge_ad.report.report import Report
from edge_ad.run_metrics import RunMetrics
from edge_ad.runs import (
    DETECTOR_FILE,
    LOCK_SECONDS,
    REPORT_FILE,
    GoodPicture,
    Run,
    read_metrics,
    run_folder,
)
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.files import locked, make_writable, temporary_folder
from edge_ad_runtime.model.score_distribution import check_rate, set_aside

logger = logging.getLogger(__name__)

FEW_PICTURES = 20

LEAST, MOST = 1e-9, 0.999
"""Range of the false-alarm rate that is reported for a limit from F1, however far out it lies."""

STALE = ".old"
"""Ending that takes an exported file out of use when its run is trained again."""


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """How the decision limit is found.

    Attributes:
        false_alarm_rate: promised share of good parts at or above it; None: 1 %, or 1/(n+1) where
            fewer than 99 pictures cannot show so little.
        from_f1: take the limit with the highest F1 on the labelled test pictures instead.
    """

    false_alarm_rate: float | None = None
    from_f1: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        if self.false_alarm_rate is not None:
            check_rate(self.false_alarm_rate)
            if self.from_f1:
                raise ConfigError(
                    "expected a false-alarm rate or a limit from F1, got both: choose one"
                )

    def check_test_split(self, test: Dataset) -> None:
        """Refuse a limit from F1 where there are not both kinds of test pictures.

        Raises:
            ConfigError: says which kind is missing.
        """
        n_defective = sum(sample.anomalous for sample in test)
        if self.from_f1 and not 0 < n_defective < len(test):
            missing = "good" if n_defective else "defective"
            raise ConfigError(
                f"expected good and defective test pictures for a limit from F1, found no "
                f"{missing} ones: leave --threshold-from out, the limit then comes from the "
                "good pictures"
            )


def train(
    detector: Detector,
    category: Category,
    results: Path | str,
    limit: LimitOptions | None = None,
) -> Run:
    """Fit the detector on a category and write `results/<category>/<method>/`.

    The folder's files are replaced only when all of them are ready. A file that was exported from
    an earlier training is renamed then, so that nothing goes on using it unnoticed.

    Raises:
        DataError: too few or unreadable pictures, or a results folder that cannot be written.
        ConfigError: the limit cannot be found as was asked.
    """
    limit = limit or LimitOptions()
    folder = run_folder(Path(results), category.name, detector.method)
    make_writable(folder)
    _check_count(category.train)
    limit.check_test_split(category.test)
    digests = category.train.digests()
    _tell_copies(digests)
    started = time.perf_counter()
    detector.fit(category.train)
    fit_seconds = time.perf_counter() - started
    good = _good_scores(detector)
    calibration = good.calibrate(limit.false_alarm_rate)
    pictures = _good_pictures(category.train, good)
    evaluation = detector.evaluate(category.test) if len(category.test) else None
    scored = tuple(evaluation.samples) if evaluation else ()
    threshold = None
    if limit.from_f1:
        threshold = best_f1_threshold(scored)
        calibration = calibration.with_rate(min(max(calibration.p_value(threshold), LEAST), MOST))
    metrics = RunMetrics(
        **vars(good.limits(calibration)),
        method=detector.method,
        category=category.name,
        backbone=detector.backbone.name,
        layers=tuple(layer.name for layer in detector.backbone.layers),
        input_size=detector.preprocessing.input_size,
        seed=detector.config.seed,
        device=str(detector.device),
        n_train=len(pictures),
        turns=detector.turns,
        n_skipped=len(category.train.bad) + len(category.test.bad),
        content_hash=content_hash(digests),
        fit_seconds=round(fit_seconds, 3),
        trained_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **_test_figures(evaluation),
        versions={
            "edge-ad": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    ).with_limit(calibration, scored, threshold)
    detector.limits, detector.calibration = metrics.limits, calibration
    run = Run(folder=folder, metrics=metrics, scored=scored, good=pictures, good_maps=good.highest)
    with _alone(folder):
        _write(run, detector, save=True)
    return run


def change_limit(folder: Path | str, rate: float) -> Run:
    """Give a run another false-alarm rate without fitting anything again.

    Rewrites `metrics.json`, the verdicts in `scores.csv`, and the report.

    Raises:
        DataError: the run or one of its pictures cannot be read, or it is of the first format.
        ConfigError: the rate cannot be promised.
    """
    check_rate(rate)
    read_metrics(Path(folder))  # a folder that is not a run is not locked
    with _alone(Path(folder)):
        run = Run.read(folder)
        if run.metrics.calibration is None:
            raise DataError(
                f"{folder} was trained by an earlier edge-ad, which kept no scores of all good "
                "pictures: train it again with --false-alarm-rate"
            )
        calibration = run.metrics.calibration.with_rate(rate)
        run = replace(run, metrics=run.metrics.with_limit(calibration, run.scored))
        _write(run, read_detector(folder), save=False)
    return run


def stale_exports(folder: Path) -> list[Path]:
    """Return the files in a run folder that an export wrote, and what lies beside them."""
    models = sorted(folder.glob("*.onnx"))
    beside = [path for model in models for path in folder.glob(f"{glob.escape(model.name)}.*")]
    return models + [path for path in beside if path.suffix != STALE]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process change the run meanwhile.

    Raises:
        DataError: another process still does, or the folder cannot be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder.resolve(), seconds=LOCK_SECONDS, needed=False))
        except BlockingIOError as error:
            raise DataError(
                f"another process is writing the run {folder}: try again when it has ended"
            ) from error
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield


def _check_count(good: Dataset) -> None:
    if len(good) < FEWEST:
        raise DataError(
            f"expected at least {FEWEST} pictures of good parts, got {len(good)}: "
            "a few dozen are a start, 200 are good"
        )
    if len(good) < FEW_PICTURES:
        logger.warning(
            "only %d pictures of good parts: the limit will be rough, 200 are good", len(good)
        )


def _tell_copies(digests: Iterable[tuple[Path, bytes]]) -> None:
    first: dict[bytes, Path] = {}
    pairs = ((path, first.setdefault(digest, path)) for path, digest in digests)
    copies = [(path, original) for path, original in pairs if path != original]
    if copies:
        copy, original = copies[-1]
        logger.warning(
            "%s the same content as another one, such as %s as %s: remove the copies; with them, "
            "fewer parts were seen than are counted, and good parts seem more alike than they are",
            "1 picture has" if len(copies) == 1 else f"{len(copies)} pictures have",
            copy,
            original,
        )


def _good_scores(detector: Detector) -> GoodScores:
    if detector.good is None:
        raise DataError(
            f"fewer than {FEWEST} pictures of good parts could be read: there is no limit without "
            "them, add some"
        )
    return detector.good


def _good_pictures(dataset: Dataset, good: GoodScores) -> tuple[GoodPicture, ...]:
    """Join the scores of the fitted pictures with their files, in the order of the fit."""
    bad = set(dataset.bad)
    paths = [sample.path for sample in dataset if sample.path not in bad]
    aside = set_aside(good.scores)
    columns = zip(paths, good.scores, good.map_minima, good.map_maxima, aside, strict=True)
    return tuple(
        GoodPicture(
            path=path,
            score=float(score),
            map_min=float(low),
            map_max=float(high),
            set_aside=bool(outlier),
        )
        for path, score, low, high, outlier in columns
    )


def _test_figures(evaluation: Evaluation | None) -> dict[str, Any]:
    """Return the figures of the test split that do not depend on a limit, as in `RunMetrics`."""
    if evaluation is None:
        return {}
    figures = vars(evaluation.metrics).copy()
    figures["n_test_good"] = figures.pop("n_good")
    figures["n_test_anomalous"] = figures.pop("n_anomalous")
    return figures


def _write(run: Run, detector: Detector, *, save: bool) -> None:
    """Put the files in place when all of them are ready; `save`: the detector is new, too.

    Raises:
        DataError: they cannot be written; the files from before are still there.
    """
    try:
        _replace_files(run, detector, save=save)
    except OSError as error:
        raise cannot_write(run.folder, error) from error


def _replace_files(run: Run, detector: Detector, *, save: bool) -> None:
    with temporary_folder(run.folder) as new:
        if save:
            detector.save(new)
        run.write(new)
        write_report(new / REPORT_FILE, Report(run=run, detector=detector))
        if save:
            _retire_exports(run.folder)
        # detector.json goes last: it is what marks a complete run.
        for path in sorted(new.iterdir(), key=lambda path: path.name == DETECTOR_FILE):
            os.replace(path, run.folder / path.name)


def _retire_exports(folder: Path) -> None:
    for path in stale_exports(folder):
        os.replace(path, path.with_name(path.name + STALE))
        if path.suffix == ".onnx":
            logger.warning(
                "%s belongs to the previous training and has been renamed to %s: export again",
                path,
                path.name + STALE,
            )
