"""Work in a thread of its own, behind a short queue."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_CLOSE_SECONDS = 5.0

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls a function with each item, in order, in a thread of its own.

    When the queue is full the oldest item is dropped; with `wait`, for files, where nothing is
    urgent, `put` waits instead.
    """

    def __init__(
        self, work: Callable[[Item], None], *, name: str, limit: int, wait: bool = False
    ) -> None:
        """Start the thread.

        Args:
            work: is called in the thread only; an `OSError` of it is told by the next `put`.
            name: of the thread.
            limit: of the queue.
            wait: for a place in the queue instead of dropping.
        """
        self._work = work
        self._limit = limit
        self._wait = wait
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=f"edge-ad {name}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item.

        Raises:
            OSError: one before it failed or was dropped.
        """
        with self._changed:
            if self._wait:
                self._changed.wait_for(lambda: len(self._waiting) < self._limit or self._closing)
            dropped = len(self._waiting) >= self._limit
            if dropped:
                self._waiting.popleft()
            self._waiting.append(item)
            self._changed.notify_all()
        if dropped:
            raise OSError("it is slower than the verdicts come, the oldest one was dropped")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Work the queue off, within seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._work(item)
                self._error = None
            except OSError as error:
                # Until one succeeds, each further `put` tells of it.
                self._error = error
