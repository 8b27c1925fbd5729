"""Let a slow output work in a thread of its own."""

import threading
from collections import deque

from edge_ad_runtime.outputs.base import Output
from edge_ad_runtime.result import Result
from edge_ad_runtime.sources import CapturedFrame

_CLOSE_SECONDS = 5.0


class Background:
    """An output behind a short queue, so that the inspection never waits for it.

    When the queue is full the oldest verdict is dropped, as a failure of the output; with `wait`,
    for files, where nothing is urgent, the stream waits instead.
    """

    def __init__(self, output: Output, *, limit: int = 8, wait: bool = False) -> None:
        """Start the thread.

        Args:
            output: is called in the thread only.
            limit: of the queue; it holds frames, which are large.
            wait: for a place in the queue instead of dropping.
        """
        self._output = output
        self._limit = limit
        self._wait = wait
        self._waiting: deque[tuple[CapturedFrame, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._error: OSError | None = None
        name = f"edge-ad {type(output).__name__}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        """Return the name of what works behind."""
        return type(self._output).__name__

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Queue a verdict.

        Raises:
            OSError: one before it failed or was dropped.
        """
        with self._changed:
            if self._wait:
                self._changed.wait_for(lambda: len(self._waiting) < self._limit or self._closing)
            dropped = len(self._waiting) >= self._limit
            if dropped:
                self._waiting.popleft()
            self._waiting.append((captured, result))
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
                self._output.write(*item)
                self._error = None
            except OSError as error:
                # Until one succeeds, each further write tells of it.
                self._error = error
