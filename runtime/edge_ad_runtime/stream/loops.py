"""Run the loops of a stream side by side, until all have ended or one has failed."""

import threading
from collections.abc import Sequence
from functools import partial
from time import monotonic

from edge_ad_runtime.errors import EdgeAdError, StuckError
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.systemd import Watchdog
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
    watchdog = Watchdog(len(loops))
    errors: list[Exception] = []

    def run(index: int) -> None:
        turned = partial(watchdog.turned, index)
        loops[index].run(stop, max_frames=max_frames, after_round=turned)
        if loops[index].tally.output_closed:
            stop.set()

    def died(error: Exception) -> None:
        errors.append(error)
        stop.set()

    threads = [
        supervisor.start(f"loop {index}", partial(run, index), died=died)
        for index in range(len(loops))
    ]
    stuck = _join_all(threads, stop)
    if stuck:
        raise StuckError(
            f"{', '.join(stuck)} did not end within {_STOP_SECONDS:g} s after the stop: a "
            "camera's driver or an output does not return"
        )
    if errors:
        raise _explained(errors[0])


def _join_all(threads: Sequence[threading.Thread], stop: threading.Event) -> list[str]:
    """Wait for all threads; return the names of those that do not end after a stop."""
    deadline: float | None = None
    running = list(threads)
    while running and (deadline is None or monotonic() < deadline):
        running[0].join(_LOOK_SECONDS)
        running = [thread for thread in running if thread.is_alive()]
        if stop.is_set() and deadline is None:
            deadline = monotonic() + _STOP_SECONDS
    return [thread.name for thread in running]


def _explained(error: Exception) -> EdgeAdError:
    if isinstance(error, EdgeAdError):
        return error
    return EdgeAdError(
        f"the inspection broke off by a fault in the program, an unexpected "
        f"{type(error).__name__}: report it with the traceback above"
    )
