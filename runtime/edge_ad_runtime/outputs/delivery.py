"""Hand verdicts and events to outputs, so that a failing one disturbs nobody else."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import ClosableOutput, EventOutput, Output

logger = logging.getLogger(__name__)


class Delivery:
    """All outputs of a stream; may be called from several threads.

    Attributes:
        lost: how many verdicts an output could not take.
    """

    def __init__(self, outputs: Sequence[Output] = ()) -> None:
        """Deliver to these outputs, in this order."""
        self.lost = 0
        self._outputs = list(outputs)
        self._failing: set[int] = set()
        self._lock = threading.RLock()

    def add(self, output: Output) -> None:
        """Deliver to one more output, behind the others."""
        with self._lock:
            self._outputs.append(output)

    def verdict(self, captured: CapturedFrame, result: Result) -> None:
        """Hand a verdict to every output.

        Raises:
            BrokenPipeError: the reader of an output has gone.
        """
        with self._lock:
            for output in self._outputs:
                self.lost += not self._try(output, partial(output.write, captured, result))

    def event(self, event: Event) -> None:
        """Log an event and hand it to every output that takes events.

        That the reader of an output has gone is left to the next verdict to find out: events come
        from threads that could not end the stream.
        """
        logger.warning("%s", event.message)
        with self._lock:
            for output in self._outputs:
                if isinstance(output, EventOutput):
                    with suppress(BrokenPipeError):
                        self._try(output, partial(output.event, event))

    def close(self) -> None:
        """Let every output finish."""
        for output in self._outputs:
            if isinstance(output, ClosableOutput):
                output.close()

    def _try(self, output: Output | EventOutput, put: Callable[[], None]) -> bool:
        """Put something out; the first failure and the first success behind it are events."""
        named = type(output).__str__ is not object.__str__
        name = str(output) if named else type(output).__name__
        try:
            put()
        except BrokenPipeError:
            raise
        except OSError as error:
            if id(output) not in self._failing:
                self._failing.add(id(output))
                self.event(
                    Event(kind="output failed", message=f"the output {name} failed: {error}")
                )
            return False
        if id(output) in self._failing:
            self._failing.discard(id(output))
            self.event(Event(kind="output back", message=f"the output {name} works again"))
        return True
