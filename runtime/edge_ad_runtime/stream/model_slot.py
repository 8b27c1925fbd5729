"""Exchange thresholds and model files of running loops, without losing a frame."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.events import Event, Report
from edge_ad_runtime.model.scorer import Scorer
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.prepared import prepare

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Station:
    """A model file and the loop that runs it.

    Attributes:
        path: of the model file.
        device: on which it runs.
        threads: for one inference.
        loop: its loop.
        content: sha256 of the file that runs.
    """

    path: Path
    device: str
    threads: int | None
    loop: Loop
    content: str


def content_of(path: Path) -> str:
    """Return the sha256 of a file, or nothing where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def reload(stations: Sequence[Station], threshold: float | None, report: Report) -> None:
    """Take over what has changed; what cannot be used is an event, and the old one goes on.

    Args:
        stations: all models of the stream.
        threshold: in place of the model files' own; None: theirs.
        report: takes an event for each model file.
    """
    for station in stations:
        try:
            _reload(station, threshold, report)
        except EdgeAdError as error:
            message = f"{station.path} does not replace the running model: {error}"
            report(Event(kind="model refused", message=message))


def _reload(station: Station, threshold: float | None, report: Report) -> None:
    loop = station.loop
    content = content_of(station.path)
    if content == station.content and isinstance(loop.scorer, Scorer):
        limit = loop.scorer.model_threshold if threshold is None else threshold
        if limit != loop.scorer.threshold:
            loop.scorer = loop.scorer.with_threshold(limit)
            logger.warning("%s: the threshold is now %g", station.path, limit)
        return
    scorer = Scorer(
        station.path, device=station.device, threads=station.threads, threshold=threshold
    )
    _try(scorer, loop)
    loop.scorer = scorer
    station.content = content
    report(
        Event(
            kind="model replaced",
            message=f"{station.path} now scores: {scorer.info.method} on {scorer.info.category}, "
            f"threshold {scorer.threshold:.4g}",
        )
    )


def _try(scorer: Scorer, loop: Loop) -> None:
    """Score the last frame with the new model.

    Raises:
        EdgeAdError: it cannot.
    """
    frame = loop.last_frame
    if frame is None:
        frame = np.zeros((*scorer.info.input_size, 3), dtype=np.uint8)
    scorer.score_prepared([prepare(scorer, frame).frame])
