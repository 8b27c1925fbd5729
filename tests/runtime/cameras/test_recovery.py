"""Lost cameras: detection, delays, events; the clock is turned by hand."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import CameraError, DataError, FakeCamera, Frame, FrameSource
from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.feed import Feed, Recovery
from edge_ad_runtime.cameras.reader import Freshness
from edge_ad_runtime.events import Event

MakeFrames = Callable[..., list[Any]]


class Clock:
    """A monotonic clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A feed with a hand-turned clock, and the sources that reopening gives, in turn."""

    def __init__(self, first: FrameSource | None, *reopened: FrameSource | CameraError) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.opened = iter(reopened)
        self.changed = threading.Condition()
        self.feed = Feed(
            "left",
            first,
            reopen=self._open,
            recovery=Recovery(stall_timeout=5, first_delay=1, longest_delay=8, jitter=0),
            report=self.events.append,
            changed=self.changed,
            clock=self.clock,
        )

    def _open(self) -> FrameSource:
        found = next(self.opened)
        if isinstance(found, CameraError):
            raise found
        return found

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def wait_ready(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.feed.ready, 60)

    def take(self) -> CapturedFrame | None:
        self.wait_ready()
        return self.feed.take()


def held(frames: list[Frame], release: threading.Event) -> Iterator[Frame]:
    """Deliver, then hang like a driver."""
    yield from frames
    release.wait(60)


def moving(frames: list[Frame]) -> Iterator[Frame]:
    """Deliver for ever, the last frame again and again."""
    yield from frames
    while True:
        time.sleep(0.001)
        yield frames[-1]


def test_a_camera_that_hangs_is_lost_after_the_timeout_and_comes_back(frames: MakeFrames) -> None:
    release = threading.Event()
    bench = Bench(
        FakeCamera(held(frames(1), release)), FakeCamera(held(frames(2, 3), threading.Event()))
    )
    captured = bench.take()
    assert captured is not None and (captured.number, captured.camera) == (0, "left")
    bench.clock.now += 4.9
    bench.feed.watch()
    assert not bench.feed.lost
    bench.clock.now += 0.2
    bench.feed.watch()
    assert bench.feed.lost
    assert "no frame for 5.1 s" in bench.events[0].message
    bench.clock.now += 1.0
    bench.feed.watch()
    found = None
    while found is None:
        found = bench.take()
    assert found.number >= 1, "numbers go on"
    assert bench.kinds() == ["camera lost", "camera back"]
    assert bench.events[1].details == {"seconds": 1.0, "attempts": 1}
    release.set()


def test_a_frozen_camera_is_lost_and_not_back_before_it_moves(frames: MakeFrames) -> None:
    bench = Bench(
        FakeCamera(moving(frames(7))),
        FakeCamera(moving(frames(7))),
        FakeCamera(held(frames(7, 8), threading.Event())),
    )
    bench.wait_ready()
    bench.clock.now += 5.1
    bench.feed.watch()
    assert bench.kinds() == ["camera lost"]
    bench.clock.now += 1
    bench.feed.watch()
    bench.take()
    assert bench.feed.lost, "one frame that does not move proves nothing"
    bench.clock.now += 16
    bench.feed.watch()
    while bench.feed.lost:
        bench.clock.now += 1
        bench.feed.watch()
        bench.feed.take()
        time.sleep(0.001)
    assert bench.kinds() == ["camera lost", "camera back"]


@pytest.mark.parametrize(
    ("arrivals", "complaint"),
    [
        ([1, 1, 1], "frozen for 6.0 s: 2 times the same frame"),
        ([1, "torn", "torn"], "no usable frame for 6.0 s, 2 failed (torn)"),
        ([1], "no frame for 6.0 s"),
    ],
)
def test_what_was_wrong(frames: MakeFrames, arrivals: list[int | str], complaint: str) -> None:
    clock = Clock()
    freshness = Freshness(clock)
    for arrival in arrivals:
        if isinstance(arrival, str):
            freshness.failed(DataError(arrival))
        else:
            freshness.arrived(frames(arrival)[0])
    clock.now += 6
    assert freshness.complaint() == complaint


@pytest.mark.parametrize(
    "garbage", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))]
)
def test_garbage_frames_are_events_and_then_a_lost_camera(garbage: Any, frames: MakeFrames) -> None:
    bench = Bench(FakeCamera(held([*frames(1), garbage, garbage], threading.Event())))
    bench.take()
    failures = 0
    while failures < 2:
        bench.wait_ready()
        try:
            bench.feed.take()
        except DataError as error:
            bench.feed.fail(error)
            failures += 1
    bench.clock.now += 5.1
    bench.feed.watch()
    assert bench.kinds() == ["frame failed", "camera lost"]
    assert "no usable frame" in bench.events[1].message


def test_a_camera_that_is_unplugged_is_tried_for_ever_with_growing_delays() -> None:
    gone = [CameraError("unplugged") for _ in range(7)]
    bench = Bench(FakeCamera([CameraError("unplugged")]), *gone)
    bench.take()
    waits = []
    for _ in range(6):
        started = bench.clock.now
        while bench.feed._reader is None:
            bench.clock.now += 0.5
            bench.feed.watch()
        waits.append(bench.clock.now - started)
        bench.take()
    assert waits == [1, 2, 4, 8, 8, 8]
    assert bench.kinds() == ["camera lost"], "one outage is one event"


def test_a_driver_that_never_returns_does_not_collect_threads(frames: MakeFrames) -> None:
    release = threading.Event()
    hanging = [FakeCamera(held([], release)) for _ in range(9)]
    bench = Bench(FakeCamera(held([], release)), *hanging)
    for _ in range(20):
        bench.clock.now += 100
        bench.feed.watch()
    assert len(bench.feed._hanging) <= 2
    release.set()


def test_a_camera_may_be_absent_at_the_start(frames: MakeFrames) -> None:
    bench = Bench(None, FakeCamera(held(frames(1, 2), threading.Event())))
    assert bench.kinds() == ["camera lost"]
    bench.clock.now += 1
    bench.feed.watch()
    while bench.feed.lost:
        bench.take()
    assert bench.kinds()[-1] == "camera back"


def test_files_are_never_lost(frames: MakeFrames) -> None:
    bench = Bench(FakeCamera(held(frames(1, 1), threading.Event()), live=False))
    bench.clock.now += 1000
    bench.feed.watch()
    assert bench.kinds() == []


def test_a_still_scene_is_allowed_where_asked() -> None:
    clock = Clock()
    freshness = Freshness(clock, compare=False)
    for _ in range(3):
        clock.now += 4
        freshness.arrived(np.zeros((8, 8, 3), np.uint8))
    assert freshness.seconds == 0 and freshness.seen


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 4.0), (1.0, 2.0)])
def test_jitter(chance: float, expected: float) -> None:
    recovery = Recovery(first_delay=1, longest_delay=60, jitter=0.5, random=lambda: chance)
    assert recovery.delay(2) == expected
    assert recovery.delay(10_000) == 60 * (expected / 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stall_timeout": -1},
        {"stall_timeout": 1e10},
        {"stall_timeout": float("nan")},
        {"first_delay": 0},
        {"longest_delay": 0.1},
        {"longest_delay": 1e9},
    ],
)
def test_refuses(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="expected"):
        Recovery(**wrong)  # type: ignore[arg-type]


def test_one_frame_per_connection_is_enough(frames: MakeFrames) -> None:
    """A slow camera, whose driver gives up before its next frame, still gives every frame."""
    bench = Bench(
        FakeCamera([*frames(1), CameraError("timeout")]),
        FakeCamera([*frames(2), CameraError("timeout")]),
        FakeCamera([*frames(2), CameraError("timeout")]),
        FakeCamera([*frames(3), CameraError("timeout")]),
    )
    means = []
    for _ in range(40):
        bench.clock.now += 0.5
        bench.feed.watch()
        reader = bench.feed._reader
        if reader is not None:
            reader._thread.join(60)
        captured = bench.feed.take()
        if captured is not None:
            means.append(captured.frame.mean())
    assert means == [1, 2, 3], "the repeated 2 is what a frozen camera sends"


def test_a_slow_camera_is_not_lost_between_its_frames(
    frames: MakeFrames, caplog: pytest.LogCaptureFixture
) -> None:
    clock, sent, ticked = Clock(), [0], threading.Condition()
    opened = threading.Semaphore(0)

    def connect() -> FrameSource:
        """A camera that sends to whoever is connected at the time."""
        seen = sent[0]
        opened.release()

        def deliver(seen: int) -> Iterator[Frame]:
            while True:
                with ticked:
                    while sent[0] == seen and ticked.wait(60):
                        pass
                    seen = sent[0]
                yield frames(seen)[0]

        return FakeCamera(deliver(seen))

    changed, events = threading.Condition(), list[Event]()
    feed = Feed(
        "slow",
        connect(),
        reopen=connect,
        recovery=Recovery(stall_timeout=5, first_delay=1, jitter=0),
        report=events.append,
        changed=changed,
        clock=clock,
    )
    judged = []
    reader = None
    for value in range(1, 17):
        for _ in range(8):
            clock.now += 1
            feed.watch()
            if feed._reader is not None and feed._reader is not reader:
                reader = feed._reader
                assert opened.acquire(timeout=60)
        with ticked:
            sent[0] = value
            ticked.notify_all()
        for given_up in feed._hanging:
            given_up._thread.join(60)
        with changed:
            assert changed.wait_for(lambda: feed.ready, 60)
        captured = feed.take()
        if captured is not None:
            judged.append(round(captured.frame.mean()))
    feed.close()
    lost = [event for event in events if event.kind == "camera lost"]
    assert judged == list(range(2, 17)), "lost before its first frame, it proves itself once"
    assert len(lost) <= 4, "once its pace is known, it is not lost between two frames"
    assert "only every 8.0 s, while stall_timeout is 5 s" in caplog.text


@pytest.mark.parametrize("fault", [MemoryError("30 GB"), RuntimeError("vendor SDK"), OSError(5)])
def test_a_reader_that_dies_is_a_lost_camera(frames: MakeFrames, fault: Exception) -> None:
    def break_off() -> Iterator[Frame]:
        yield frames(1)[0]
        raise fault

    bench = Bench(FakeCamera(break_off()), FakeCamera(held(frames(2, 3), threading.Event())))
    while not bench.feed.lost:
        bench.take()
    assert type(fault).__name__ in bench.events[0].message
    assert str(fault) not in bench.events[0].message, "it may hold an address with a password"
    bench.clock.now += 1
    bench.feed.watch()
    while bench.feed.lost:
        bench.take()
    assert bench.kinds() == ["camera lost", "camera back"]


def test_a_camera_that_is_given_up_while_it_opens_is_not_read(frames: MakeFrames) -> None:
    """Its first picture may never come, and the thread would stay in the driver."""
    read = list[str]()

    class Watched(FakeCamera):
        def read(self) -> CapturedFrame | None:
            read.append(self.name)
            return super().read()

    bench = Bench(None)
    bench.opened = iter(())
    opening, opened = threading.Event(), threading.Event()

    def open_slowly() -> FrameSource:
        opening.set()
        assert opened.wait(60)
        return Watched(frames(1))

    bench.feed._reopen = open_slowly
    bench.clock.now += 1
    bench.feed.watch()
    assert opening.wait(60)
    bench.feed.close(wait=0)
    opened.set()
    assert bench.feed._reader is not None
    bench.feed._reader._thread.join(60)
    assert not bench.feed._reader.alive and read == []
