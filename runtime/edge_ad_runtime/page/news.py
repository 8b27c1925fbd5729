"""What callers are told of the cameras: condition, limits and parts a viewer, counts Prometheus."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge_ad_runtime.page.state import CameraState, PageState
from edge_ad_runtime.stream.stream import Stream

_LISTED = 24
_LIST_SECONDS = 2.0
"""How often the list of anomalous parts may change: a viewer loads each new one."""


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
        camera, info = self._state.cameras[name], self._stream.info_of(name)
        override = self._stream.override_of(name)
        latest = camera.latest
        points = self._state.history_after(name, known.points.get(name, 0))
        if points:
            known.points[name] = points[-1][0]
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
                {"number": number, **event.fields()} for number, event in camera.warnings.values()
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
        """Return what is going on at a camera, in one of five words or so."""
        if camera.lost:
            return "no camera" if camera.latest is None else "camera lost"
        if self._stream.triggers is not None and camera.latest is None:
            return "waiting for a trigger"
        return "no part yet" if camera.latest is None else "running"


class _Collector(Collector):
    def __init__(self, state: PageState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        cameras = list(self._state.cameras.values())
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
