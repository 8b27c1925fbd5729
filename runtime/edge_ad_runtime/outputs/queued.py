"""Outputs that work in a thread of their own, so that the inspection never waits for them."""

import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import JsonLines, Output
from edge_ad_runtime.supervisor import Supervisor

_CLOSE_SECONDS = 5.0
_CLOSE_SECONDS_OF_FILES = 30.0
"""For one item, where nothing is urgent: a large picture takes a small device many seconds."""

Item = TypeVar("Item")


class Worker(Generic[Item]):
    """Calls a function with each item, in order, in a thread of its own.

    When the queue is full the oldest item is dropped; with `wait`, for files, where nothing is
    urgent, `put` waits instead.
    """

    def __init__(
        self,
        work: Callable[[Item], None],
        *,
        name: str,
        limit: int,
        wait: bool = False,
        quiet: bool = False,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Start the thread.

        Args:
            work: is called in the thread only; an `OSError` that it raises is raised by the next
                `put`.
            name: of the thread.
            limit: of the queue.
            wait: for a place in the queue instead of dropping the oldest item.
            quiet: an item that was dropped is not an error.
            supervisor: starts the thread, again when it failed.
        """
        self._work = work
        self._limit = limit
        self._wait = wait
        self._quiet = quiet
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._running = True
        self._error: OSError | None = None
        self._thread = (supervisor or Supervisor()).start(name, self._run)

    def put(self, item: Item) -> None:
        """Queue an item.

        Raises:
            OSError: one before it failed or was dropped.
        """
        with self._changed:
            if self._wait:
                self._changed.wait_for(self._has_room)
            dropped = len(self._waiting) >= self._limit
            if dropped:
                self._waiting.popleft()
            self._waiting.append(item)
            self._changed.notify_all()
        if dropped and not self._quiet:
            raise OSError("it cannot keep up with the verdicts; the oldest one was dropped")
        error = self._error  # once: the thread may set it back to None at any moment
        if error is not None:
            raise error

    def close(self) -> int:
        """Work the queue off, within seconds; return how many failures no `put` has reported.

        With `wait`, it may take as long as one item after the other is done.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._wait:
            left = -1
            while self._thread.is_alive() and left != len(self._waiting):
                left = len(self._waiting)
                self._thread.join(_CLOSE_SECONDS_OF_FILES)
        else:
            self._thread.join(_CLOSE_SECONDS)
        broken = isinstance(self._error, BrokenPipeError)
        return 0 if broken else len(self._waiting) + (self._error is not None)

    @property
    def busy(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _has_room(self) -> bool:
        return len(self._waiting) < self._limit or self._closing or not self._running

    def _run(self) -> None:
        self._running = True
        finished = False
        try:
            while (item := self._next()) is not None:
                self._try(item[0])
            finished = True
        finally:
            # After an exception that nobody foresaw, too, nobody may wait for this thread.
            with self._changed:
                self._running = False
                if not finished:
                    self._error = OSError("its thread failed, and is started again")
                self._changed.notify_all()

    def _next(self) -> tuple[Item] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
        return (item,)

    def _try(self, item: Item) -> None:
        try:
            self._work(item)
            self._error = None
        except OSError as error:
            # Until one succeeds, each further `put` reports the failure.
            self._error = error


class Background(Output):
    """An output behind a short queue.

    When the queue is full the oldest verdict is dropped, which is a failure of the output, unless
    it is a best-effort one; with `wait`, for files, the stream waits instead.
    """

    def __init__(
        self,
        output: Output,
        *,
        limit: int = 8,
        wait: bool = False,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Start the thread.

        Args:
            output: is called in the thread only.
            limit: of the queue; it holds frames, which are large.
            wait: for a place in the queue instead of dropping.
            supervisor: starts the thread, again when it failed.
        """
        self.name = output.name
        self.best_effort = output.best_effort
        self._output = output
        self._takes_events = type(output).event is not Output.event
        self._worker: Worker[Callable[[], None]] = Worker(
            lambda put: put(),
            name=self.name,
            limit=limit,
            wait=wait,
            quiet=self.best_effort,
            supervisor=supervisor,
        )

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Queue a verdict.

        Raises:
            OSError: one before it failed or was dropped.
        """
        self._worker.put(partial(self._output.write, captured, result))

    def event(self, event: Event) -> None:
        """Queue an event, if the output takes events.

        Raises:
            OSError: as `write`.
        """
        if self._takes_events:
            self._worker.put(partial(self._output.event, event))

    def close(self) -> None:
        """Work the queue off, as `Worker.close`, and close the output.

        Raises:
            OSError: something is left, or the output cannot be closed.
        """
        self.lost = self._worker.close()
        if not self._worker.busy:
            self._output.close()
        if self.lost and not self.best_effort:
            raise OSError(f"the last verdicts or events could not be written ({self.lost} lost)")


class LiveLines(JsonLines):
    """`JsonLines` to a pipe or terminal whose reader may be stuck.

    A terminal that somebody stopped, or a pipe that nobody empties, takes nothing more. Then lines
    wait, and beyond the limit the oldest is dropped, which is a failure of the output.
    """

    name = "standard output"

    def __init__(
        self, descriptor: int, *, limit: int = 1000, supervisor: Supervisor | None = None
    ) -> None:
        """Start the thread.

        Args:
            descriptor: of an open file, past Python's buffer, whose lock a stuck thread would hold.
            limit: of the lines that wait.
            supervisor: starts the thread, again when it failed.
        """
        self._descriptor = descriptor
        self._worker: Worker[str] = Worker(
            self._write_all, name=self.name, limit=limit, supervisor=supervisor
        )
        super().__init__(_Queue(self._worker))

    def close(self) -> None:
        """Write what waits, within seconds.

        Raises:
            OSError: some lines are left.
        """
        self.lost = self._worker.close()
        if self.lost:
            raise OSError(f"the last lines could not be written ({self.lost} lost)")

    def _write_all(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]


class _Queue:
    """The text file that `JsonLines` writes to."""

    def __init__(self, worker: Worker[str]) -> None:
        self._worker = worker

    def write(self, text: str) -> int:
        self._worker.put(text)
        return len(text)

    def flush(self) -> None:
        """The thread holds nothing back."""
