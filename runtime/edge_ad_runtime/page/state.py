"""What the page knows of each camera, and what it tells viewers and Prometheus of that."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result, iso_time
from edge_ad_runtime.outputs import Output
from edge_ad_runtime.outputs.base import event_fields
from edge_ad_runtime.page.parts import Part, Parts
from edge_ad_runtime.stream.stream import Stream

_HISTORY = 300
_EVENTS = 200
_SKIPS = 20
_LASTING = ("drift", "scene changed", "overload")
_REMEDIES = ("camera back", "model replaced")

_LISTED = 24
_LIST_SECONDS = 2.0
"""How often the list of anomalous parts may change: a viewer loads each new one."""


@dataclass(kw_only=True)
class Shift:
    """Counts since somebody set them back to zero, or since the start.

    Attributes:
        started: when, aware.
        frames: how many parts got a verdict.
        anomalous: how many of these were anomalous.
        failed: how many failures of frames were reported.
    """

    started: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    frames: int = 0
    anomalous: int = 0
    failed: int = 0

    def fields(self) -> dict[str, object]:
        """Return what the page shows of it."""
        return {
            "started": iso_time(self.started),
            "frames": self.frames,
            "anomalous": self.anomalous,
            "failed": self.failed,
        }


@dataclass(kw_only=True)
class CameraState:
    """One camera, as the page knows it.

    Attributes:
        name: of the camera.
        frames: how many got a verdict since the start.
        anomalous: how many of these were anomalous.
        failed: how many failures were reported.
        shift: the same since the start of the shift.
        lost: whether it is away.
        alarm: whether its alarm is on.
        warnings: the last event of each kind that stays true for a while, with its number.
        latest: its newest part.
        seen_at: when that came, monotonic.
        history: the last points of the chart with their numbers, which count the verdicts of the
            stream.
        skips: whether there was a gap before each of the last verdicts.
    """

    name: str
    frames: int = 0
    anomalous: int = 0
    failed: int = 0
    shift: Shift = field(default_factory=Shift)
    lost: bool = False
    alarm: bool = False
    warnings: dict[str, tuple[int, Event]] = field(default_factory=dict)
    latest: Part | None = None
    seen_at: float = field(default_factory=monotonic)
    history: deque[tuple[int, dict[str, object]]] = field(
        default_factory=lambda: deque(maxlen=_HISTORY)
    )
    skips: deque[bool] = field(default_factory=lambda: deque(maxlen=_SKIPS))


class PageState(Output):
    """An output that remembers; encoding is left to those who look.

    Attributes:
        cameras: by name.
        parts: what can still be shown.
    """

    name = "live page"
    best_effort = True

    def __init__(
        self,
        steps: dict[str, int],
        info: Callable[[str], ModelInfo],
        added: Callable[[Part], None] = lambda part: None,
    ) -> None:
        """Start with nothing seen.

        Args:
            steps: by the name of each camera: how far apart the numbers of two frames lie when none
                is skipped.
            info: gives the model in use at a camera.
            added: called with each new part; must be quick.
        """
        self.cameras = {name: CameraState(name=name) for name in steps}
        self.parts = Parts(list(steps))
        self._steps = steps
        self._info = info
        self._added = added
        self._events: deque[tuple[int, Event]] = deque(maxlen=_EVENTS)
        self._event_count = self._verdict_count = 0
        self._lock = threading.Lock()

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Note a verdict."""
        camera = self.cameras[captured.camera]
        part = self.parts.add(captured, result, self._info(captured.camera))
        with self._lock:
            self._verdict_count += 1
            for counts in (camera, camera.shift):
                counts.frames += 1
                counts.anomalous += result.anomalous
            if camera.latest is not None:
                step = captured.number - camera.latest.captured.number
                camera.skips.append(step > self._steps[captured.camera])
            camera.latest = part
            camera.seen_at = monotonic()
            camera.history.append((self._verdict_count, part.point()))
        self._added(part)

    def event(self, event: Event) -> None:
        """Note an event."""
        camera = self.cameras.get(event.camera)
        with self._lock:
            self._event_count += 1
            self._events.append((self._event_count, event))
            if camera is None:
                return
            for counts in (camera, camera.shift):
                counts.failed += event.kind == "frame failed"
            if event.kind in ("camera lost", "camera back"):
                camera.lost = event.kind == "camera lost"
            if event.kind in ("alarm on", "alarm off"):
                camera.alarm = event.kind == "alarm on"
            if event.kind in _LASTING:
                camera.warnings[event.kind] = (self._event_count, event)
            if event.kind in _REMEDIES:
                camera.warnings.clear()

    def begin_shift(self, camera: str) -> Shift:
        """Set the counts of a shift at a camera back to zero, and return those of the last one."""
        with self._lock:
            ended, self.cameras[camera].shift = self.cameras[camera].shift, Shift()
            return ended

    def now(self, camera: str) -> CameraState:
        """Return a camera as it is at one moment: a verdict or an event changes several counts."""
        with self._lock:
            found = self.cameras[camera]
            return replace(found, shift=replace(found.shift), warnings=dict(found.warnings))

    def is_behind(self) -> bool:
        """Whether frames of a camera are skipped, because more come than the device can score."""
        with self._lock:
            return any(any(camera.skips) for camera in self.cameras.values())

    def events_after(self, number: int) -> list[tuple[int, Event]]:
        """Return the events after a number, each with its own."""
        with self._lock:
            return [item for item in self._events if item[0] > number]

    def history_after(self, camera: str, number: int) -> list[tuple[int, dict[str, object]]]:
        """Return the last points of a camera after a number, each with its own, oldest first."""
        with self._lock:
            return [item for item in self.cameras[camera].history if item[0] > number]


@dataclass
class Known:
    """What a viewer has been told already.

    Attributes:
        points: the number of the last part of each camera.
        listed: the id of the newest anomalous part; empty: there was none.
        listed_at: when, monotonic.
    """

    points: dict[str, int] = field(default_factory=dict)
    listed: str | None = None
    listed_at: float = 0.0


class News:
    """Describes a stream to its viewers."""

    def __init__(self, stream: Stream, state: PageState) -> None:
        """Describe a stream, whose verdicts the state notes."""
        self._stream = stream
        self._state = state

    def since(self, known: Known) -> dict[str, Any]:
        """Describe all cameras, and of the parts those that a viewer does not know yet."""
        names = list(self._state.cameras)
        news: dict[str, Any] = {
            "cameras": [self._camera_fields(index, name, known) for index, name in enumerate(names)]
        }
        listed = self._state.parts.anomalous(_LISTED)
        newest = listed[0].id if listed else ""
        due = known.listed is None or monotonic() - known.listed_at > _LIST_SECONDS
        if newest != known.listed and due:
            known.listed, known.listed_at = newest, monotonic()
            news["gallery"] = [part.fields() for part in listed]
        return news

    def _camera_fields(self, index: int, name: str, known: Known) -> dict[str, Any]:
        info, override = self._stream.info_of(name), self._stream.override_of(name)
        points = self._state.history_after(name, known.points.get(name, 0))
        if points:
            known.points[name] = points[-1][0]
        camera = self._state.now(name)
        latest = camera.latest
        return {
            "index": index,
            "name": name,
            "model": f"{info.method} on {info.category}",
            "state": self._condition(camera),
            "frames": camera.frames,
            "anomalous": camera.anomalous,
            "failed": camera.failed,
            "shift": camera.shift.fields(),
            "lost": camera.lost,
            "alarm": camera.alarm,
            "warnings": [
                {"number": number, **event_fields(event)}
                for number, event in camera.warnings.values()
            ],
            "seconds_since": round(monotonic() - camera.seen_at, 1),
            "latest": None if latest is None else latest.id,
            "score": None if latest is None else latest.result.score,
            "is_anomalous": latest is not None and latest.result.anomalous,
            "latency_ms": None if latest is None else round(latest.result.latency_ms, 1),
            "threshold": info.threshold,
            "threshold_rule": info.threshold_rule,
            "threshold_set_by": None if override is None else override.who,
            "model_threshold": self._stream.own_threshold_of(name),
            "score_range": info.score_range,
            "parts": [point for _, point in points],
        }

    def _condition(self, camera: CameraState) -> str:
        """Return what is going on at a camera, in a few words."""
        if camera.lost:
            return "no camera" if camera.latest is None else "camera lost"
        if self._stream.triggers is not None and camera.latest is None:
            return "waiting for a trigger"
        return "no part yet" if camera.latest is None else "running"


class _Collector(Collector):
    def __init__(self, state: PageState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        cameras = [self._state.now(name) for name in self._state.cameras]
        for name, text, attribute in (
            ("edge_ad_frames", "Frames that got a verdict", "frames"),
            ("edge_ad_anomalous_frames", "Frames found anomalous", "anomalous"),
            ("edge_ad_failed_frames", "Reported failures of frames", "failed"),
        ):
            counter = CounterMetricFamily(name, text, labels=["camera"])
            for camera in cameras:
                counter.add_metric([camera.name], getattr(camera, attribute))
            yield counter
        up = GaugeMetricFamily("edge_ad_camera_up", "1: the camera delivers", labels=["camera"])
        score = GaugeMetricFamily("edge_ad_score", "Score of the newest frame", labels=["camera"])
        latency = GaugeMetricFamily(
            "edge_ad_latency_seconds", "Latency of the newest frame", labels=["camera"]
        )
        for camera in cameras:
            up.add_metric([camera.name], 0 if camera.lost else 1)
            if camera.latest is not None:
                score.add_metric([camera.name], camera.latest.result.score)
                latency.add_metric([camera.name], camera.latest.result.latency_ms / 1000)
        yield from (up, score, latency)


def exposition(state: PageState) -> bytes:
    """Return the text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collector(state))
    return generate_latest(registry)
