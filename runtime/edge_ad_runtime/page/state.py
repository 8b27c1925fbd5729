"""What the page shows: the newest verdict of each camera, counts, history, events."""

import threading
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs import Output

_HISTORY = 300
_EVENTS = 200


@dataclass(kw_only=True)
class CameraState:
    """One camera, as the page knows it.

    Attributes:
        name: of the camera.
        frames: how many got a verdict.
        anomalous: how many of these were anomalous.
        failed: how many failures were reported.
        lost: whether it is away.
        alarm: whether its alarm is on.
        latest: its newest frame and verdict.
        seen_at: when that came, monotonic.
        scores: the last scores.
    """

    name: str
    frames: int = 0
    anomalous: int = 0
    failed: int = 0
    lost: bool = False
    alarm: bool = False
    latest: tuple[CapturedFrame, Result] | None = None
    seen_at: float = field(default_factory=monotonic)
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))


class PageState(Output):
    """Remembers little; encoding is left to those who look."""

    name = "live page"
    best_effort = True

    def __init__(self, cameras: list[str]) -> None:
        """Start with nothing seen of these cameras."""
        self.cameras = {name: CameraState(name=name) for name in cameras}
        self._events: deque[tuple[int, Event]] = deque(maxlen=_EVENTS)
        self._count = 0
        self._lock = threading.Lock()

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Note a verdict."""
        camera = self.cameras[captured.camera]
        with self._lock:
            camera.frames += 1
            camera.anomalous += result.anomalous
            camera.latest = (captured, result)
            camera.seen_at = monotonic()
            camera.scores.append(result.score)

    def event(self, event: Event) -> None:
        """Note an event."""
        camera = self.cameras.get(event.camera)
        with self._lock:
            self._count += 1
            self._events.append((self._count, event))
            if camera is None:
                return
            camera.failed += event.kind == "frame failed"
            if event.kind in ("camera lost", "camera back"):
                camera.lost = event.kind == "camera lost"
            if event.kind in ("alarm on", "alarm off"):
                camera.alarm = event.kind == "alarm on"

    def events_after(self, number: int) -> list[tuple[int, Event]]:
        """Return the events behind a number, each with its own."""
        with self._lock:
            return [item for item in self._events if item[0] > number]

    def scores(self, camera: str) -> list[float]:
        """Return the last scores of a camera, oldest first."""
        with self._lock:
            return list(self.cameras[camera].scores)
