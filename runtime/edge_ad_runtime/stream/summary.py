"""What happened in a stream, summed up at its end."""

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from edge_ad_runtime.errors import CameraError
from edge_ad_runtime.stream.loop import Tally


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


def sum_up(tallies: list[Tally], lost_outputs: int) -> StreamSummary:
    """Return the sum over all loops of a stream."""
    latencies = [latency for tally in tallies for latency in tally.latencies]
    p50, p95 = np.percentile(latencies, (50, 95)) if latencies else (None, None)
    errors = [tally.camera_error for tally in tallies if tally.camera_error is not None]
    return StreamSummary(
        frames=sum(tally.frames for tally in tallies),
        anomalous=sum(tally.anomalous for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        skipped=sum(tally.skipped for tally in tallies),
        lost_outputs=lost_outputs,
        seconds=perf_counter() - min(tally.started for tally in tallies),
        latency_p50_ms=None if p50 is None else float(p50),
        latency_p95_ms=None if p95 is None else float(p95),
        camera_error=errors[0] if errors else None,
        output_closed=any(tally.output_closed for tally in tallies),
    )
