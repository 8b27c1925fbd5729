"""Verdicts and events as JSON, one object a line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.config_table import setting
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import verdict_fields


@dataclass(frozen=True, kw_only=True)
class JsonConfig:
    """Lines of JSON in a file: begun anew at `max_mb`, of which `files` old ones are kept."""

    path: Path = setting(expected="the path of a file")
    max_mb: float = setting(100.0, low=0.001, high=1e6)
    files: int = setting(10, low=1, high=10_000)


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
