"""Verdicts and events as JSON, one object a line."""

import json
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import verdict_fields


class TextFile(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> int:
        """Append a text."""

    def flush(self) -> None:
        """Hold nothing back."""


class JsonLines:
    """One JSON object a line, flushed line by line; events are the lines with the key `event`."""

    def __init__(self, file: TextFile, *, camera: str = "") -> None:
        """Write to an open text file.

        Args:
            file: where the lines go.
            camera: stands in the lines of frames that do not know their camera.
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
        self._put(event.fields())

    def _put(self, fields: dict[str, object]) -> None:
        self._file.write(json.dumps(fields) + "\n")
        self._file.flush()
