"""Run the loops of a stream side by side, and tell systemd that all of them are alive."""

import math
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic

from edge_ad_runtime.errors import EdgeAdError, StuckError
from edge_ad_runtime.stream.loop import Loop
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
