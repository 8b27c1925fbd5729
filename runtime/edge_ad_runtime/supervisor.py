"""Every thread of a stream starts here, so that none of them dies unnoticed."""

import logging
import threading
from collections.abc import Callable
from time import monotonic

from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.events import Event, Report

logger = logging.getLogger(__name__)

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
"""Seconds before a thread that failed is started again; each failure doubles them."""


class Supervisor:
    """Starts threads, reports those that fail, and starts them again or tells their owner.

    This is the one place where every exception is caught: an error that nobody foresaw must neither
    end a thread in silence nor, with it, the verdicts that the thread was responsible for.

        supervisor.start("sender", self._send_all)              # started again when it fails
        supervisor.start("reader left", self._read, died=self._broke_off)
    """

    def __init__(
        self, report: Report = lambda event: None, *, first_delay: float = _FIRST_DELAY
    ) -> None:
        """Start without threads.

        Args:
            report: takes the event `thread failed`; the traceback goes to the log in any case.
            first_delay: seconds before the first restart of a thread.
        """
        self._report = report
        self._first_delay = first_delay
        self._closing = threading.Event()

    def start(
        self,
        name: str,
        work: Callable[[], None],
        *,
        died: Callable[[Exception], None] | None = None,
    ) -> threading.Thread:
        """Run a function in a thread of its own, until it returns.

        Args:
            name: of the thread, in messages and in debuggers.
            work: the function. When it raises, that is an event, and the function is called again
                after a delay that doubles with each failure, up to 30 s.
            died: is called in the thread instead of a restart, with the exception.

        Returns:
            The thread, already running. It is a daemon: a driver or a socket that never returns
            must not keep the process from ending.
        """
        thread = threading.Thread(
            target=self._supervise, args=(name, work, died), name=f"edge-ad {name}", daemon=True
        )
        thread.start()
        return thread

    def close(self) -> None:
        """Start no thread again from now on."""
        self._closing.set()

    def _supervise(
        self, name: str, work: Callable[[], None], died: Callable[[Exception], None] | None
    ) -> None:
        delay = self._first_delay
        while True:
            started = monotonic()
            try:
                work()
                return
            except Exception as error:  # noqa: BLE001  (see the class)
                if died is not None:
                    self._tell(name, error, "it is not started again")
                    died(error)
                    return
                if monotonic() - started > _LONGEST_DELAY:
                    delay = self._first_delay
                self._tell(name, error, f"it is started again in {delay:g} s")
            if self._closing.wait(delay):
                return
            delay = min(2 * delay, _LONGEST_DELAY)

    def _tell(self, name: str, error: Exception, consequence: str) -> None:
        # Our own errors explain themselves. The text of any other one may hold an address with its
        # password, so only its kind leaves the device; the log has all of it.
        if isinstance(error, EdgeAdError):
            reason = str(error)
        else:
            reason = f"an unexpected {type(error).__name__}"
            logger.error("the thread %s failed", name, exc_info=error)
        message = f"the thread {name} failed ({reason}): {consequence}"
        try:
            self._report(Event(kind="thread failed", message=message, details={"thread": name}))
        except Exception as failure:  # an output that fails must not end the thread
            logger.error("the event of the thread %s could not be reported", name, exc_info=failure)
