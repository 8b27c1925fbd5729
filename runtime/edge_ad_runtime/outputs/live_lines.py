"""JSON lines for a reader that may be stuck: the inspection does not wait for it."""

import os
import threading
from collections import deque

from edge_ad_runtime.outputs.json_lines import JsonLines

_CLOSE_SECONDS = 5.0


class LiveLines(JsonLines):
    """`JsonLines` to a pipe or terminal, written by a thread of its own.

    A terminal that somebody stopped, or a pipe that nobody empties, takes nothing more. Then lines
    wait, and beyond the limit the oldest is dropped, as a failure of the output.
    """

    def __init__(self, descriptor: int, *, limit: int = 1000) -> None:
        """Start the thread.

        Args:
            descriptor: of an open file, past Python's buffer, whose lock a stuck thread would hold.
            limit: of the lines that wait.
        """
        self._writer = _Writer(descriptor, limit)
        super().__init__(self._writer)

    def close(self) -> None:
        """Write what waits, within seconds."""
        self._writer.close()


class _Writer:
    """A text file whose writes return at once."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="edge-ad lines", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue a text.

        Raises:
            OSError: one before it was dropped or could not be written.
        """
        with self._changed:
            dropped = len(self._waiting) >= self._limit
            if dropped:
                self._waiting.popleft()
            self._waiting.append(text.encode())
            self._changed.notify()
        if dropped:
            raise OSError("its reader is stuck, the oldest line was dropped")
        if self._error is not None:
            raise self._error
        return len(text)

    def flush(self) -> None:
        """The thread holds nothing back."""

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                line = self._waiting.popleft()
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
                self._error = None
            except OSError as error:
                # Until one succeeds, each further write tells of it.
                self._error = error
