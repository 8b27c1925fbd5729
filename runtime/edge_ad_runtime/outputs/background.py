"""Let a slow output work in a thread of its own."""

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import Output
from edge_ad_runtime.outputs.queued import Worker


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
        self._name = type(output).__name__
        self._worker: Worker[tuple[CapturedFrame, Result]] = Worker(
            lambda verdict: output.write(*verdict), name=self._name, limit=limit, wait=wait
        )

    def __str__(self) -> str:
        """Return the name of what works behind."""
        return self._name

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Queue a verdict.

        Raises:
            OSError: one before it failed or was dropped.
        """
        self._worker.put((captured, result))

    def close(self) -> None:
        """Work the queue off, within seconds."""
        self._worker.close()
