"""Score captured frames, with whatever of the work the reader has done already."""

from time import perf_counter
from typing import Protocol

import numpy as np

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.model.scorer import Scorer

_TRIALS = 5
_GAIN = 0.95


class FrameScorer(Protocol):
    """What a stream needs of a `Scorer`."""

    def score(self, frame: Frame) -> Result:
        """Score one frame."""


def prepare(scorer: Scorer, frame: Frame) -> Prepared:
    """Bring a frame to the size of the model's input.

    Raises:
        DataError: it is not uint8, H x W x 3.
    """
    started = perf_counter()
    made = scorer.prepare(frame)
    milliseconds = (perf_counter() - started) * 1000
    return Prepared(frame=made, preprocessing=scorer.preprocessing, milliseconds=milliseconds)


def score_one(scorer: FrameScorer, captured: CapturedFrame) -> Result:
    """Score one captured frame.

    Raises:
        DataError: it cannot be scored.
        DeviceError: the device failed.
    """
    if not isinstance(scorer, Scorer):
        return scorer.score(captured.frame)
    prepared = _prepared(scorer, captured)
    return scorer.score_prepared([prepared.frame], prepared_ms=prepared.milliseconds)[0]


def score_together(scorer: Scorer, batch: list[CapturedFrame]) -> list[Result]:
    """Score frames of several cameras in one inference.

    Raises:
        DataError: one of them cannot be scored.
        DeviceError: the device failed.
    """
    prepared = [_prepared(scorer, captured) for captured in batch]
    longest = max(item.milliseconds for item in prepared)
    return scorer.score_prepared([item.frame for item in prepared], prepared_ms=longest)


def batching_wins(scorer: Scorer, size: int) -> bool:
    """Measure whether so many frames are scored sooner together than one after the other."""
    height, width = scorer.info.input_size
    frames = [np.zeros((height, width, 3), dtype=np.uint8)] * size
    together, alone = [], []
    for _ in range(_TRIALS):
        started = perf_counter()
        scorer.score_prepared(frames)
        half = perf_counter()
        for frame in frames:
            scorer.score_prepared([frame])
        together.append(half - started)
        alone.append(perf_counter() - half)
    return min(together) < _GAIN * min(alone)


def _prepared(scorer: Scorer, captured: CapturedFrame) -> Prepared:
    """Take the reader's work, unless the model was replaced since by one of another input."""
    made = captured.prepared
    if made is not None and made.preprocessing == scorer.preprocessing:
        return made
    return prepare(scorer, captured.frame)
