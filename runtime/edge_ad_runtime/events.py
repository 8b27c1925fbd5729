"""What a stream tells besides verdicts: cameras, alarms, failures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

EventKind = Literal[
    "camera lost",
    "camera back",
    "frame failed",
    "trigger failed",
    "alarm on",
    "alarm off",
    "drift",
    "scene changed",
    "overload",
    "output failed",
    "output back",
    "model replaced",
    "model refused",
    "model installed",
    "model rolled back",
    "threshold changed",
    "threshold kept",
    "verdict marked",
    "shift began",
    "thread failed",
    "state refused",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that an operator or a controller should hear of.

    Attributes:
        kind: one of a fixed list, for programs.
        message: one sentence, for people; holds no credentials.
        camera: which camera it is about; empty: the whole stream.
        timestamp: when, aware.
        details: further fields of the JSON line.
    """

    kind: EventKind
    message: str
    camera: str = ""
    timestamp: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    details: Mapping[str, object] = field(default_factory=dict)


Report = Callable[[Event], None]
"""Takes events, from any thread."""
