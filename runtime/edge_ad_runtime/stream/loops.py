"""Run the loops of a stream side by side, tell systemd that they are alive, and sum them up."""

import math
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter

import numpy as np

from edge_ad_runtime.errors import CameraError, EdgeAdError, StuckError, counted
from edge_ad_runtime.stream.loop import Loop, Tally
from edge_ad_runtime.supervisor import Supervisor

_LOOK_SECONDS = 0.5
_STOP_SECONDS = 5.0
"""How long a loop may take to end after a stop before the stream ends without it."""


def run_loops(
    loops: Sequence[Loop],
    stop: threading.Event,
    supervisor: Supervisor,
    *,
    max_frames: int | None = None,
) -> None:
    """Run each loop in a thread of its own; the end of one output, or its failure, ends them all.

    Args:
        loops: one for each model.
        stop: ends them after the current frame; is set when one of them fails.
        supervisor: starts the threads.
        max_frames: of each loop.

    Raises:
        StuckError: a loop did not end in time after a stop.
        EdgeAdError: of the first loop that failed.
    """
    errors: list[Exception] = []

    def run(loop: Loop) -> None:
        loop.run(stop, max_frames=max_frames)
        if loop.tally.output_closed:
            stop.set()

    def died(error: Exception) -> None:
        errors.append(error)
        stop.set()

    threads = {
        supervisor.start(f"loop {index}", partial(run, loop), died=died): loop
        for index, loop in enumerate(loops)
    }
    stuck = _join_all(threads, stop)
    if stuck:
        raise StuckError(
            f"{', '.join(stuck)} did not end within {_STOP_SECONDS:g} s after the stop: a "
            "camera's driver or an output does not return"
        )
    if errors:
        raise _explained(errors[0])


def _join_all(threads: Mapping[threading.Thread, Loop], stop: threading.Event) -> list[str]:
    """Wait for all threads; return the names of those that do not end after a stop."""
    watchdog = Watchdog()
    deadline: float | None = None
    running = dict(threads)
    while running and (deadline is None or monotonic() < deadline):
        next(iter(running)).join(min(_LOOK_SECONDS, watchdog.look_seconds))
        running = {thread: loop for thread, loop in running.items() if thread.is_alive()}
        watchdog.look({thread.name: loop.rounds for thread, loop in running.items()})
        if stop.is_set() and deadline is None:
            deadline = monotonic() + _STOP_SECONDS
    return [thread.name for thread in running]


def _explained(error: Exception) -> EdgeAdError:
    if isinstance(error, EdgeAdError):
        return error
    return EdgeAdError(
        f"the inspection ended because of a fault in the program, an unexpected "
        f"{type(error).__name__}: report it with the traceback above"
    )


class Watchdog:
    """Sends WATCHDOG=1 while every loop turns; a single one that hangs lets systemd restart all.

    Attributes:
        look_seconds: how often `look` has to be called for a message in time.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """Read the interval that systemd wants from the environment.

        Args:
            clock: monotonic, in seconds.
        """
        micros = os.environ.get("WATCHDOG_USEC", "")
        self._interval = int(micros) / 1e6 / 2 if micros.isdigit() else math.inf
        self.look_seconds = self._interval / 2
        self._clock = clock
        self._sent = clock()
        self._rounds: Mapping[str, int] = {}

    def look(self, rounds: Mapping[str, int]) -> None:
        """Look whether the loops have turned since the last message, and send the next in time.

        Args:
            rounds: how many rounds of each loop are over; loops that have ended are not in it.
        """
        if self._clock() - self._sent < self._interval:
            return
        if all(count > self._rounds.get(name, 0) for name, count in rounds.items()):
            self._sent = self._clock()
            self._rounds = rounds
            notify("WATCHDOG=1")


def notify(state: str) -> bool:
    """Send a state such as `READY=1` to the service manager; return whether there is one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A leading @ stands for the zero byte of Linux's abstract sockets.
    address = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError:  # of a process without a free descriptor, too
        return False
    return True


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
            counted(self.frames, "frame"),
            f"{self.anomalous} anomalous",
            f"{self.skipped} skipped",
            f"{self.failed} failed",
            f"{self.frames_per_second:.1f} frames per second",
        ]
        if self.lost_outputs:
            parts.insert(4, f"{counted(self.lost_outputs, 'verdict')} lost by an output")
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
