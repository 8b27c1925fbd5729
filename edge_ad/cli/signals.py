"""Signals to a running stream, taken so that no burst of them can hang it."""

import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from edge_ad_runtime.supervisor import Supervisor

_HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Windows has none."""

_LOOK_SECONDS = 0.5


class Signals:
    """Turns SIGINT and SIGTERM into `stop`, and each SIGHUP into a call of a function.

    Python runs a signal handler between any two instructions of the main thread, perhaps while that
    holds the very lock that the handler needs. So the handlers here touch no lock: the interpreter
    writes the number of each signal into a socket (`signal.set_wakeup_fd`), and a thread reads it.

    Attributes:
        stop: set after SIGINT or SIGTERM.
        received: which of the two came.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self.stop = threading.Event()
        self.received: list[int] = []
        self._reload = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._before: dict[int, Any] = {}
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def __enter__(self) -> "Signals":
        """Take SIGHUP; until `watch` is called, SIGINT and SIGTERM end the program at once."""
        self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._handle(signal.SIGINT, _leave)
        self._handle(signal.SIGTERM, _leave)
        if _HANGUP is not None:
            self._handle(_HANGUP, _ignore)
        return self

    def __exit__(self, *_: object) -> None:
        """Give all signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._closing.set()
        self._reload.set()
        for thread in self._threads:
            thread.join(2 * _LOOK_SECONDS)
        self._receiver.close()
        self._sender.close()

    def watch(self, supervisor: Supervisor, reload: Callable[[], None]) -> None:
        """From now on SIGINT and SIGTERM set `stop`; a second one has its usual effect.

        Args:
            supervisor: starts the threads.
            reload: is called after SIGHUP, one that came before included; several in a short time
                may be one call.
        """
        self._threads = [
            supervisor.start("signals", self._read),
            supervisor.start("reload", lambda: self._reload_when_asked(reload)),
        ]
        self._handle(signal.SIGINT, self._end)
        self._handle(signal.SIGTERM, self._end)

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        before = signal.signal(number, handler)
        self._before.setdefault(number, before)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        signal.signal(number, self._before[number])

    def _read(self) -> None:
        while not self._closing.is_set():
            # A burst may fill the socket and drop a number, so `received` is looked at in any case.
            ready, _, _ = select.select([self._receiver], [], [], _LOOK_SECONDS)
            numbers = self._receiver.recv(4096) if ready else b""
            if self.received:
                self.stop.set()
            if _HANGUP is not None and _HANGUP in numbers:
                self._reload.set()

    def _reload_when_asked(self, reload: Callable[[], None]) -> None:
        while True:
            self._reload.wait()
            if self._closing.is_set():
                return
            self._reload.clear()
            reload()


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception here could surface in the middle of another package's import, or of the start of
    # a thread. Nothing has been written yet, and the system closes what is open.
    if number == signal.SIGINT:
        with suppress(OSError):
            os.write(2, b"interrupted\n")
        os._exit(130)
    os._exit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The socket has got the number."""
