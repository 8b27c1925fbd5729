"""The counts for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge_ad_runtime.page.state import PageState


class _Collector(Collector):
    def __init__(self, state: PageState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        cameras = list(self._state.cameras.values())
        for name, text, field in (
            ("edge_ad_frames", "Frames that got a verdict", "frames"),
            ("edge_ad_anomalous_frames", "Frames found anomalous", "anomalous"),
            ("edge_ad_failed_frames", "Reported failures of frames", "failed"),
        ):
            counter = CounterMetricFamily(name, text, labels=["camera"])
            for camera in cameras:
                counter.add_metric([camera.name], getattr(camera, field))
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
