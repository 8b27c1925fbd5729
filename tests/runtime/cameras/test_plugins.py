"""Sources from other packages: found by name, and harmless whatever they do."""

import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import (
    CameraError,
    CapturedFrame,
    FakeCamera,
    FrameError,
    FrameSource,
    open_source,
)
from edge_ad_runtime.cameras import plugins
from edge_ad_runtime.cameras.feed import Feed, Recovery
from edge_ad_runtime.events import Event


class Faulty(FrameSource):
    """Fails where it is told to."""

    live = True

    def __init__(self, place: str) -> None:
        if place == "open":
            raise RuntimeError("Zq7")
        self.name = "faulty"
        self.place = place
        self.closed = False

    def read(self) -> Any:
        if self.place == "read":
            raise TypeError("Zq7")
        if self.place == "frame":
            raise FrameError("torn")
        return "no frame"

    def cancel(self) -> None:
        raise ValueError("Zq7")

    def close(self) -> None:
        self.closed = True
        raise OSError("Zq7")


def test_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("vendor", "broken", "wrong")
    entries = [EntryPoint(name, name, plugins.GROUP) for name in names]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    monkeypatch.setattr(EntryPoint, "load", lambda point: load(point.name))
    camera = open_source("vendor:serial=12")
    assert camera.name == "serial=12"
    for name, message in (("broken", "cannot be loaded"), ("wrong", "not a FrameSource")):
        with pytest.raises(CameraError, match=message):
            open_source(f"{name}:x")


def load(name: str) -> Callable[[str], object]:
    if name == "broken":
        raise ImportError("no SDK")
    return (lambda text: FakeCamera([], name=text)) if name == "vendor" else str


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [EntryPoint("faulty", "faulty", plugins.GROUP)]
    )
    monkeypatch.setattr(EntryPoint, "load", lambda point: Faulty)


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("place", ["open", "read", "rubbish"])
def test_a_plugin_that_raises_is_a_lost_camera(place: str) -> None:
    with pytest.raises(CameraError, match="the source plug-in 'faulty'") as caught:
        with open_source(f"faulty:{place}") as source:
            source.cancel()
            source.read()
    assert "Zq7" not in str(caught.value), "its text may hold a password"


@pytest.mark.usefixtures("faulty")
def test_a_plugin_may_lose_one_frame() -> None:
    with open_source("faulty:frame") as source, pytest.raises(FrameError, match="torn"):
        source.read()


@pytest.mark.usefixtures("faulty")
def test_a_plugin_that_raises_is_reopened() -> None:
    events, changed = list[Event](), threading.Condition()
    good = FakeCamera([np.full((8, 8, 3), value, np.uint8) for value in (1, 2)])
    feed = Feed(
        "left",
        open_source("faulty:read"),
        reopen=lambda: good,
        recovery=Recovery(first_delay=0.01, jitter=0),
        report=events.append,
        changed=changed,
    )
    found: CapturedFrame | None = None
    for _ in range(1000):
        feed.watch()
        found = feed.take()
        if found is not None:
            break
        with changed:
            changed.wait(0.01)
    assert found is not None
    assert [event.kind for event in events] == ["camera lost", "camera back"]
    feed.close()
