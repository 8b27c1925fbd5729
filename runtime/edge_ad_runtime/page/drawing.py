"""The one thread that draws pictures for all viewers, behind the inspection in priority."""

import asyncio
import logging
import os
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, thread_time

from edge_ad_runtime.page.parts import Part, Pictures

logger = logging.getLogger(__name__)

_MOST_WAITING = 4
_KEEP_SECONDS = 0.3
_NICENESS = 10


class Drawing:
    """Draws each part at most once, however many look at it, and nothing that nobody wants.

    Attributes:
        cpu_seconds: what drawing has cost so far.
    """

    def __init__(self, side: int) -> None:
        """Make pictures with sides of at most so many pixels."""
        self.cpu_seconds = 0.0
        self._side = side
        self._kept_at = -_KEEP_SECONDS
        self._waiting = threading.Semaphore(_MOST_WAITING)
        self._pool = ThreadPoolExecutor(1, "edge-ad page pictures", initializer=_step_back)

    async def pictures(self, part: Part) -> Pictures | None:
        """Return the pictures of a part; None: it is too late."""
        if part.pictures is not None:
            return part.pictures
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._draw, part)

    def keep(self, part: Part) -> None:
        """Draw an anomalous part soon, so that it can be listed, also when its frame has gone.

        Of many in a short time only some are drawn: no verdict depends on it.
        """
        if not part.result.anomalous or monotonic() - self._kept_at < _KEEP_SECONDS:
            return
        if not self._waiting.acquire(blocking=False):
            return
        self._kept_at = monotonic()
        try:
            self._pool.submit(self._draw, part).add_done_callback(self._kept)
        except RuntimeError:
            self._waiting.release()  # the page is closing

    def close(self) -> None:
        """Draw nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _draw(self, part: Part) -> Pictures | None:
        started = thread_time()
        pictures = part.draw(self._side)
        self.cpu_seconds += thread_time() - started
        return pictures

    def _kept(self, done: "Future[Pictures | None]") -> None:
        self._waiting.release()
        if not done.cancelled() and done.exception() is not None:
            logger.error("a part cannot be drawn", exc_info=done.exception())


def _step_back() -> None:
    """Let every other thread go first; only Linux knows priorities of single threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
