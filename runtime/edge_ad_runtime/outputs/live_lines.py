"""JSON lines for a reader that may be stuck: the inspection does not wait for it."""

import os

from edge_ad_runtime.outputs.json_lines import JsonLines
from edge_ad_runtime.outputs.queued import Worker


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
        self._descriptor = descriptor
        self._worker: Worker[str] = Worker(self._write_whole, name="lines", limit=limit)
        super().__init__(_Queue(self._worker))

    def __str__(self) -> str:
        """Return what its user knows it by."""
        return "standard output"

    def close(self) -> None:
        """Write what waits, within seconds."""
        self._worker.close()

    def _write_whole(self, text: str) -> None:
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
