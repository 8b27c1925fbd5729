"""What an output is, how verdicts and events reach all of them, and what they look like in JSON."""

import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from time import monotonic
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result, iso_time

logger = logging.getLogger(__name__)

SETTLED_SECONDS = 10.0
"""Without a failure, until an output counts as working again.

One that is too slow takes every other verdict, and each change would be an event on all others."""


class Output(ABC):
    """Takes every verdict of a stream; an output that wants events or an end overrides the rest.

    Attributes:
        name: what its user knows it by.
        best_effort: what it cannot take is not a lost verdict: a gallery, not a record.
        lost: how many verdicts it took and lost later.
    """

    name: str = "output"
    best_effort: bool = False
    lost: int = 0

    @abstractmethod
    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Put out one verdict.

        Raises:
            OSError: it could not be put out.
        """

    def event(self, event: Event) -> None:  # noqa: B027  (most outputs need not override it)
        """Put out one event.

        Raises:
            OSError: it could not be put out.
        """

    def close(self) -> None:  # noqa: B027  (most outputs need not override it)
        """Finish what is under way, within seconds; nothing is put out afterwards.

        Raises:
            OSError: something could not be finished.
        """


class Writer(Protocol):
    """The least that a caller of `run_stream` may pass as an output."""

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Put out one verdict; as `Output.write`."""


class _Adapted(Output):
    """Gives a `Writer` what it lacks of an `Output`."""

    def __init__(self, writer: Writer) -> None:
        self.name = type(writer).__name__
        self._write = writer.write
        self._event: Callable[[Event], None] = getattr(writer, "event", super().event)
        self._close: Callable[[], None] = getattr(writer, "close", super().close)

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self._write(captured, result)

    def event(self, event: Event) -> None:
        self._event(event)

    def close(self) -> None:
        self._close()


class Delivery:
    """All outputs of a stream; may be called from several threads.

    Attributes:
        lost: how many verdicts an output could not take, or lost.
    """

    def __init__(self, outputs: Sequence[Writer] = ()) -> None:
        """Deliver to these outputs, in this order."""
        self.lost = 0
        self._outputs: list[Output] = []
        # When each failed last, by its id: an output may be a dataclass, without a hash.
        self._failing: dict[int, float] = {}
        self._lock = threading.RLock()
        for output in outputs:
            self.add(output)

    def add(self, output: Writer) -> None:
        """Deliver to one more output, after the others."""
        with self._lock:
            self._outputs.append(output if isinstance(output, Output) else _Adapted(output))

    def verdict(self, captured: CapturedFrame, result: Result) -> None:
        """Hand a verdict to every output.

        Raises:
            BrokenPipeError: the reader of an output has gone; the others have got the verdict.
        """
        gone: BrokenPipeError | None = None
        with self._lock:
            for output in self._outputs:
                try:
                    taken = self._try(output, partial(output.write, captured, result))
                except BrokenPipeError as error:
                    gone = error
                else:
                    self.lost += not (taken or output.best_effort)
                    if taken:
                        self._settle(output)
        if gone is not None:
            raise gone

    def event(self, event: Event) -> None:
        """Log an event and hand it to every output.

        That the reader of an output has gone is left to the next verdict to find out: events come
        from threads that could not end the stream.
        """
        self._tell(event, about=None)

    def close(self) -> None:
        """Let every output finish, the last one first, whether or not another one fails."""
        with ExitStack() as closing:
            for output in self._outputs:
                closing.callback(self._close, output)

    def _close(self, output: Output) -> None:
        with self._lock:
            self._outputs.remove(output)
        try:
            output.close()
        except OSError as error:
            if id(output) not in self._failing:
                self._tell(_failed(output, error), about=output)
        finally:
            self.lost += 0 if output.best_effort else output.lost

    def _tell(self, event: Event, about: Output | None) -> None:
        """Hand out an event, but not to the output that it is about."""
        logger.warning("%s", event.message)
        with self._lock:
            for output in self._outputs:
                if output is not about:
                    with suppress(BrokenPipeError):
                        self._try(output, partial(output.event, event))

    def _try(self, output: Output, put: Callable[[], None]) -> bool:
        """Put something out; the first failure is an event."""
        try:
            put()
        except BrokenPipeError:
            raise
        except OSError as error:
            known = id(output) in self._failing
            self._failing[id(output)] = monotonic()
            if not known:
                self._tell(_failed(output, error), about=output)
            return False
        return True

    def _settle(self, output: Output) -> None:
        """Report an output that works again, once it has taken verdicts for a while."""
        failed = self._failing.get(id(output))
        if failed is not None and monotonic() - failed >= SETTLED_SECONDS:
            del self._failing[id(output)]
            message = f"the output {output.name} works again"
            self._tell(Event(kind="output back", message=message), about=output)


def _failed(output: Output, error: OSError) -> Event:
    reason = error.strerror or str(error)
    if error.filename is not None and str(error.filename) != output.name:
        reason += f": {error.filename}"
    return Event(kind="output failed", message=f"the output {output.name} failed: {reason}")


def verdict_fields(captured: CapturedFrame, result: Result, camera: str) -> dict[str, object]:
    """Return the fields of a verdict in JSON, the same in every output."""
    fields: dict[str, object] = {"frame": captured.number, "camera": captured.camera or camera}
    if captured.path is not None:
        fields["path"] = str(captured.path)
    if captured.trigger is not None:
        fields["trigger"] = captured.trigger
    return fields | result.fields(captured.timestamp)


def event_fields(event: Event) -> dict[str, object]:
    """Return the fields of an event in JSON; the key `event` tells it from a verdict."""
    return {
        "event": event.kind,
        "camera": event.camera,
        "timestamp": iso_time(event.timestamp),
        "message": event.message,
        **event.details,
    }


class TextFile(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> int:
        """Append a text."""

    def flush(self) -> None:
        """Hold nothing back."""


class JsonLines(Output):
    """One JSON object per line, flushed line by line; events are the lines with the key `event`."""

    name = "lines of JSON"

    def __init__(self, file: TextFile, *, camera: str = "") -> None:
        """Write to an open text file, which the caller closes.

        Args:
            file: where the lines go.
            camera: name in the lines of frames that do not know their camera.
        """
        self._file = file
        self._camera = camera

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Write the line of a verdict.

        Raises:
            OSError: the file takes no more; BrokenPipeError when its reader has gone.
        """
        self._put(verdict_fields(captured, result, self._camera))

    def event(self, event: Event) -> None:
        """Write the line of an event.

        Raises:
            OSError: as `write`.
        """
        self._put(event_fields(event))

    def _put(self, fields: dict[str, object]) -> None:
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()
