"""Collecting from a live camera: on demand, at a pace, after a loss, on a full disk."""

import itertools
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from edge_ad_runtime import CameraError, DataError, FakeCamera, Frame, list_pictures, read_frame
from edge_ad_runtime.cameras.feed import Feed, Recovery
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import appearance
from edge_ad_runtime.stream import collect as module
from edge_ad_runtime.stream.collect import Collection, collect, doubts_of, usual_of
from edge_ad_runtime.stream.triggers import Triggers


def scene(value: int) -> Frame:
    """A picture with edges; scenes of different values differ."""
    frame = np.full((64, 64, 3), 90, np.uint8)
    frame[value % 60 :: 7, :: 1 + value % 5] = 180
    return frame


def feed_of(
    frames: Iterator[Frame], changed: threading.Condition, *reopened: FakeCamera
) -> tuple[Feed, list[Event]]:
    events: list[Event] = []
    sources = iter(reopened)
    feed = Feed(
        "left",
        FakeCamera(frames),
        reopen=lambda: next(sources),
        # On a machine that stands still for seconds, no camera is lost.
        recovery=Recovery(stall_timeout=0, first_delay=0.01, jitter=0),
        report=events.append,
        changed=changed,
    )
    return feed, events


def test_on_demand_the_picture_is_one_from_after_the_request(tmp_path: Path) -> None:
    changed = threading.Condition()
    shown, release = [0], threading.Event()

    def live() -> Iterator[Frame]:
        while not release.wait(0.01):
            yield scene(shown[0])

    feed, events = feed_of(live(), changed)
    triggers, collection = Triggers(["left"], events.append), Collection()
    told: list[str] = []
    running = threading.Thread(
        target=collect,
        args=(feed, tmp_path, collection),
        kwargs={"changed": changed, "triggers": triggers, "count": 3, "tell": told.append},
    )
    running.start()
    for value in (11, 12, 12, 13):
        shown[0] = value
        threading.Event().wait(0.1)  # a part that passes before anybody asks
        before = len(collection.paths), len(told)
        triggers.request()
        for _ in range(500):
            if (len(collection.paths), len(told)) != before:
                break
            threading.Event().wait(0.01)
    running.join(60)
    release.set()
    assert not running.is_alive() and events == []
    assert told == ["not kept: it shows the same static scene as the picture before it"]
    for value, path in zip((11, 12, 13), collection.paths, strict=True):
        np.testing.assert_array_equal(read_frame(path), scene(value))


def test_the_end_of_requests_is_the_end(tmp_path: Path) -> None:
    changed = threading.Condition()
    release = threading.Event()

    def live() -> Iterator[Frame]:
        for number in range(10**6):
            if release.wait(0.01):
                return
            yield scene(number)

    feed, events = feed_of(live(), changed)
    triggers, collection = Triggers(["left"], events.append), Collection()
    triggers.request()
    triggers.request()
    triggers.finish()
    collect(feed, tmp_path, collection, changed=changed, triggers=triggers)
    release.set()
    assert len(collection.paths) == 2 and events == []


def test_a_request_that_gets_no_picture_is_told(tmp_path: Path) -> None:
    changed, release, now = threading.Condition(), threading.Event(), itertools.count()

    def nothing() -> Iterator[Frame]:
        release.wait()
        yield from ()

    feed, events = feed_of(nothing(), changed)
    triggers = Triggers(["left"], events.append, timeout=5, clock=lambda: next(now))
    triggers.request("part 7")
    triggers.finish()
    collect(feed, tmp_path, Collection(), changed=changed, triggers=triggers)
    release.set()
    assert [event.message for event in events] == [
        "the trigger part 7 failed at left: no frame within 5 s"
    ]


def test_a_lost_camera_is_opened_again(tmp_path: Path) -> None:
    def lost() -> Iterator[Frame | CameraError]:
        yield from (scene(1), scene(2), CameraError("unplugged"))

    changed, count = threading.Condition(), 0
    feed, events = feed_of(lost(), changed, FakeCamera([scene(3), scene(4), scene(5)]))  # type: ignore[arg-type]
    collection = Collection()
    collect(feed, tmp_path, collection, changed=changed, count=2)
    count = len(list_pictures(tmp_path))
    assert count == len(collection.paths) >= 1
    assert [event.kind for event in events][:2] == ["camera lost", "camera back"]


def test_what_was_written_before_the_disk_was_full_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def write(path: Path, data: bytes, *, replace: bool) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)
        written.append(path)

    monkeypatch.setattr(module, "write_whole", write)
    changed, collection = threading.Condition(), Collection()
    feed = Feed(
        "file", FakeCamera([scene(number) for number in range(9)], live=False), changed=changed
    )
    with pytest.raises(DataError, match=r"No space left on device: .* \(2 pictures kept\)"):
        collect(feed, tmp_path, collection, changed=changed)
    assert collection.paths == written


@pytest.mark.parametrize("every", [0.2, 0.4])
def test_the_pace_is_kept(tmp_path: Path, every: float) -> None:
    changed, release = threading.Condition(), threading.Event()
    start, ticks = datetime(2026, 1, 1, tzinfo=timezone.utc), [0]

    def clock() -> float:
        return ticks[0] / 100

    def live() -> Iterator[Frame]:
        while not release.wait(0.001):
            ticks[0] += 1
            yield scene(ticks[0])

    camera = FakeCamera(live(), now=lambda: start + timedelta(seconds=clock()))
    feed, collection = Feed("left", camera, changed=changed), Collection()
    collect(feed, tmp_path, collection, changed=changed, every=every, count=4, clock=clock)
    release.set()
    times = [datetime.strptime(one.name[:21], "%Y%m%dT%H%M%S%f") for one in collection.paths]
    gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
    assert min(gaps) >= every - 0.015  # a frame may have been captured a tick before it is due


def test_doubts_know_the_others() -> None:
    white = appearance(np.full((64, 64, 3), 255, np.uint8))
    assert any(text.startswith("over-exposed") for text in doubts_of(white, None))
    assert doubts_of(white, usual_of([white] * 5)) == [], (
        "a white background is told of a few times only"
    )
