"""The loop: newest frame in, verdict out, until the source ends or someone says stop."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

import numpy as np

from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.image import Frame
from edge_ad_runtime.outputs import Output
from edge_ad_runtime.reader import Reader
from edge_ad_runtime.result import Result
from edge_ad_runtime.sources import CapturedFrame, FrameSource

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.2
"""How soon the loop notices a stop while no frame comes."""

_KEPT_LATENCIES = 10_000
"""Percentiles are over so many last frames: a stream of months needs no more memory."""


class FrameScorer(Protocol):
    """What the loop needs of a `Scorer`."""

    def score(self, frame: Frame) -> Result:
        """Score one frame."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What happened in a stream.

    Attributes:
        frames: how many got a verdict.
        anomalous: how many of these were anomalous.
        failed: how many could not be read or scored.
        skipped: how many frames of a live camera gave way to a newer one.
        lost_outputs: how many times an output could not take a verdict.
        seconds: from start to end.
        latency_p50_ms: median latency of the last 10,000 frames; None without frames.
        latency_p95_ms: likewise, the 95th percentile.
        camera_error: the end of the camera, where that ended the stream.
        output_closed: the reader of an output has gone, which ended the stream.
    """

    frames: int
    anomalous: int
    failed: int
    skipped: int
    lost_outputs: int
    seconds: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    camera_error: CameraError | None = None
    output_closed: bool = False

    @property
    def frames_per_second(self) -> float:
        """Verdicts a second, waiting included."""
        return self.frames / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """Return one line for people."""
        parts = [
            f"{self.frames} frames",
            f"{self.anomalous} anomalous",
            f"{self.skipped} skipped",
            f"{self.failed} failed",
            f"{self.frames_per_second:.1f} frames per second",
        ]
        if self.lost_outputs:
            parts.insert(4, f"{self.lost_outputs} verdicts lost by an output")
        if self.latency_p50_ms is not None and self.latency_p95_ms is not None:
            parts.append(
                f"latency p50 {self.latency_p50_ms:.1f} ms, p95 {self.latency_p95_ms:.1f} ms"
            )
        return ", ".join(parts)


def run_stream(
    source: FrameSource,
    scorer: FrameScorer,
    outputs: Sequence[Output] = (),
    *,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
) -> StreamSummary:
    """Score the frames of a source until it ends, and hand each verdict to every output.

    Files: every frame once, in order. Live: the newest frame each time; skipped ones are counted.
    A frame that cannot be read or scored is logged and counted, and the stream goes on; an output
    that fails likewise. The source is closed at the end.

    Args:
        source: where frames come from.
        scorer: a `Scorer`, or anything with its `score`.
        outputs: where verdicts go.
        max_frames: end after so many frames, failed ones included.
        stop: set it, from a signal handler or another thread, to end after the current frame.

    Raises:
        DeviceError: the device can no longer run the model.
    """
    stop = stop or threading.Event()
    tally = _Tally()
    with Reader(source) as reader:
        try:
            while not stop.is_set() and (max_frames is None or tally.handled < max_frames):
                captured = _next_frame(reader, tally)
                if captured is not None:
                    _handle(captured, scorer, outputs, tally)
                elif reader.ended:
                    break
        except CameraError as error:
            tally.camera_error = error
        except BrokenPipeError:
            tally.output_closed = True
        return tally.summary(reader.skipped)


@dataclass(kw_only=True)
class _Tally:
    """Counts while the stream runs."""

    frames: int = 0
    anomalous: int = 0
    failed: int = 0
    lost_outputs: int = 0
    camera_error: CameraError | None = None
    output_closed: bool = False
    started: float = field(default_factory=perf_counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))

    @property
    def handled(self) -> int:
        return self.frames + self.failed

    def fail(self, error: DataError) -> None:
        self.failed += 1
        logger.error("%s", error)

    def add(self, result: Result) -> None:
        self.frames += 1
        self.anomalous += result.anomalous
        self.latencies.append(result.latency_ms)

    def summary(self, skipped: int) -> StreamSummary:
        p50, p95 = np.percentile(self.latencies, (50, 95)) if self.latencies else (None, None)
        return StreamSummary(
            frames=self.frames,
            anomalous=self.anomalous,
            failed=self.failed,
            skipped=skipped,
            lost_outputs=self.lost_outputs,
            seconds=perf_counter() - self.started,
            latency_p50_ms=None if p50 is None else float(p50),
            latency_p95_ms=None if p95 is None else float(p95),
            camera_error=self.camera_error,
            output_closed=self.output_closed,
        )


def _next_frame(reader: Reader, tally: _Tally) -> CapturedFrame | None:
    try:
        return reader.take(timeout=_WAIT_SECONDS)
    except DataError as error:
        tally.fail(error)
        return None


def _handle(
    captured: CapturedFrame, scorer: FrameScorer, outputs: Sequence[Output], tally: _Tally
) -> None:
    """Score one frame and put its verdict out.

    Raises:
        BrokenPipeError: the reader of an output has gone.
    """
    try:
        result = scorer.score(captured.frame)
    except DataError as error:
        tally.fail(error)
        return
    tally.add(result)
    for output in outputs:
        try:
            output.write(captured, result)
        except BrokenPipeError:
            raise
        except OSError as error:
            tally.lost_outputs += 1
            logger.error("frame %d: an output failed (%s)", captured.number, error)
