"""Tell systemd that the stream is ready, and that its inference loops are alive."""

import os
import socket
from collections.abc import Callable
from time import monotonic


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


class Watchdog:
    """Sends WATCHDOG=1 while every loop turns; a single one that hangs lets systemd restart all."""

    def __init__(self, loops: int, clock: Callable[[], float] = monotonic) -> None:
        """Read the interval that systemd wants from the environment.

        Args:
            loops: how many have to turn.
            clock: monotonic, in seconds.
        """
        micros = os.environ.get("WATCHDOG_USEC", "")
        self._interval = int(micros) / 1e6 / 2 if micros.isdigit() else None
        self._clock = clock
        self._sent = clock()
        self._turned = [False] * loops

    def turned(self, loop: int) -> None:
        """Note a turn of a loop; quick."""
        if self._interval is None:
            return
        self._turned[loop] = True
        if self._clock() - self._sent >= self._interval and all(self._turned):
            self._sent = self._clock()
            self._turned = [False] * len(self._turned)
            notify("WATCHDOG=1")
