"""What an output of a stream is."""

from typing import Protocol, runtime_checkable

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result


class Output(Protocol):
    """Takes every verdict of a stream."""

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Put out one verdict.

        Raises:
            OSError: it could not be put out.
        """


@runtime_checkable
class EventOutput(Protocol):
    """An output that takes events too."""

    def event(self, event: Event) -> None:
        """Put out one event.

        Raises:
            OSError: it could not be put out.
        """


@runtime_checkable
class ClosableOutput(Protocol):
    """An output with something to finish at the end of a stream."""

    def close(self) -> None:
        """Finish what is under way, within seconds."""


def verdict_fields(captured: CapturedFrame, result: Result, camera: str) -> dict[str, object]:
    """Return a verdict as it stands in JSON, in every output alike."""
    fields: dict[str, object] = {"frame": captured.number, "camera": captured.camera or camera}
    if captured.path is not None:
        fields["path"] = str(captured.path)
    if captured.trigger is not None:
        fields["trigger"] = captured.trigger
    return fields | result.fields(captured.timestamp)
