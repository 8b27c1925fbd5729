"""Triggers, reload, several cameras on one model, plug-ins, watched folders, systemd."""

import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import (
    CameraError,
    CapturedFrame,
    FakeCamera,
    Frame,
    FrameSource,
    Result,
    Scorer,
    open_source,
)
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.stream.config import parse_config
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.loops import Watchdog, notify
from edge_ad_runtime.stream.model_slot import ModelSlot
from edge_ad_runtime.stream.stream import Stream
from edge_ad_runtime.stream.triggers import Triggers, accept, accept_lines, request_by_text

WriteModel = Callable[..., Path]


class Recorder:
    def __init__(self) -> None:
        self.verdicts: list[tuple[CapturedFrame, Result]] = []
        self.events: list[Event] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.verdicts.append((captured, result))

    def event(self, event: Event) -> None:
        self.events.append(event)


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def live(release: threading.Event) -> Iterator[Frame]:
    """A camera whose frames differ, until it is released."""
    rng = np.random.default_rng(0)
    while not release.wait(0.01):
        yield rng.integers(0, 90, (48, 96, 3), dtype=np.uint8)


def nothing(release: threading.Event) -> Iterator[Frame]:
    """A camera that delivers nothing until it is released."""
    release.wait(60)
    yield from ()


def start(loop: Loop, stop: threading.Event, sources: dict[str, FrameSource]) -> threading.Thread:
    for name, source in sources.items():
        loop.add_camera(name, source)
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    return thread


def test_each_trigger_gets_one_verdict_or_an_explicit_failure(model: Path) -> None:
    recorder, stop, release = Recorder(), threading.Event(), threading.Event()
    delivery = Delivery([recorder])
    ahead = [0.0]
    # The clock is put forward once the live camera has answered, however busy the machine is.
    triggers = Triggers(
        ["left", "dead"], delivery.event, timeout=100, clock=lambda: time.monotonic() + ahead[0]
    )
    loop = Loop(ModelSlot(Scorer(model, threads=1)), delivery, triggers)
    silent = FakeCamera(nothing(release), name="dead")
    running = start(loop, stop, {"left": FakeCamera(live(release)), "dead": silent})
    asked = [request_by_text(triggers, f"part-{number} left") for number in range(20)]
    asked.append(request_by_text(triggers, '{"camera": "left"}'))
    accept(triggers, b"late dead", delivery.event)
    accept(triggers, b"lost nowhere", delivery.event)
    accept(triggers, b"{not json", delivery.event)
    wait(lambda: len(recorder.verdicts) == 21)
    ahead[0] = 200
    wait(lambda: len(recorder.events) == 3)
    stop.set()
    release.set()
    running.join(60)
    assert {event.kind for event in recorder.events} == {"trigger failed"}
    judged = [captured.trigger for captured, _ in recorder.verdicts]
    failed = [str(event.details["trigger"]) for event in recorder.events]
    # On a busy machine some of the first camera's triggers may be late, too.
    assert judged == [trigger for trigger in asked if trigger not in failed]
    late = {trigger for trigger in asked if trigger not in judged}
    assert sorted(failed) == sorted({"late", "lost nowhere", "{not json"} | late)


def test_a_trigger_gets_a_frame_from_behind_it(model: Path) -> None:
    recorder, stop, release = Recorder(), threading.Event(), threading.Event()
    delivery = Delivery([recorder])
    triggers = Triggers(["left"], delivery.event)
    loop = Loop(ModelSlot(Scorer(model, threads=1)), delivery, triggers)
    source = FakeCamera(live(release))
    running = start(loop, stop, {"left": source})
    time.sleep(0.2)
    assert recorder.verdicts == []
    asked = time.time()
    triggers.request("now")
    wait(lambda: recorder.verdicts)
    assert recorder.verdicts[0][0].timestamp.timestamp() >= asked
    stop.set()
    release.set()
    running.join(60)


def test_lines_of_stdin_are_triggers_and_their_end_is_the_end(
    model: Path, frames: Callable[..., list[Any]]
) -> None:
    recorder = Recorder()
    delivery = Delivery([recorder])
    triggers = Triggers(["parts"], delivery.event)
    loop = Loop(ModelSlot(Scorer(model, threads=1)), delivery, triggers)
    running = start(
        loop, threading.Event(), {"parts": FakeCamera(frames(*range(60, 90)), live=False)}
    )
    accept_lines(triggers, io.BytesIO(b"a\nb\n\n"), delivery.event)
    running.join(60)
    assert not running.is_alive()
    assert [captured.trigger for captured, _ in recorder.verdicts][:2] == ["a", "b"]
    assert [captured.number for captured, _ in recorder.verdicts] == [0, 1, 2]


def test_two_cameras_share_a_model_and_a_dead_one_delays_nobody(model: Path) -> None:
    recorder, stop, release = Recorder(), threading.Event(), threading.Event()
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]))
    silent = FakeCamera(nothing(release))
    sources: dict[str, FrameSource] = {
        "a": FakeCamera(live(release)),
        "b": FakeCamera(live(release)),
        "dead": silent,
    }
    running = start(loop, stop, sources)
    wait(lambda: len(recorder.verdicts) > 40)
    stop.set()
    release.set()
    running.join(60)
    counts = [sum(item.camera == name for item, _ in recorder.verdicts) for name in sources]
    assert min(counts[:2]) > 10 and counts[2] == 0


def test_a_file_that_has_ended_beside_a_camera_takes_no_time(
    model: Path, frames: Callable[..., list[Any]]
) -> None:
    stop, release = threading.Event(), threading.Event()
    recorder = Recorder()
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]))
    loop.add_camera("file", FakeCamera(frames(1, 2), live=False))
    loop.add_camera("camera", FakeCamera(live(release)))
    running = threading.Thread(target=loop.run, args=(stop,))
    running.start()
    wait(lambda: len(recorder.verdicts) > 50)
    stop.set()
    release.set()
    running.join(60)
    # Each frame is worth at most two rounds: one that takes it, and one that finds nothing.
    assert loop.rounds < 3 * len(recorder.verdicts)


def test_waiting_for_work_changes_nothing(model: Path) -> None:
    recorder, now = Recorder(), [0.0]
    triggers = Triggers(["left"], recorder.event, timeout=1.0, clock=lambda: now[0])
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]), triggers)
    release = threading.Event()
    feed = loop.add_camera("left", FakeCamera(live(release)))
    wait(lambda: feed.ready)
    triggers.request("late")
    now[0] = 5.0
    assert loop._has_work() and loop._has_work()
    assert recorder.events == [], "only a round expires triggers"
    triggers.expire("left")
    assert [event.details["trigger"] for event in recorder.events] == ["late"]
    assert not loop._has_work()
    release.set()
    feed.close()


def test_a_camera_that_is_lost_for_good_does_not_end_the_others(
    model: Path, frames: Callable[..., list[Any]]
) -> None:
    recorder = Recorder()
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]))
    loop.add_camera("gone", FakeCamera([*frames(1), CameraError("unplugged")], live=False))
    loop.add_camera("file", FakeCamera(frames(*range(60)), live=False))
    loop.run(threading.Event())
    counts = [captured.camera for captured, _ in recorder.verdicts]
    assert (counts.count("gone"), counts.count("file")) == (1, 60)
    assert [(event.kind, event.camera) for event in recorder.events] == [("camera lost", "gone")]
    assert str(loop.tally.camera_error) == "unplugged"


@pytest.mark.parametrize("batching", [True, False])
def test_together_or_alone_gives_the_same(
    model: Path, frames: Callable[..., list[Any]], batching: bool
) -> None:
    recorder = Recorder()
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]))
    sources = {
        name: FakeCamera(frames(*values), live=False)
        for name, values in (("a", (1, 2, 3)), ("b", (101, 102, 103)))
    }
    for name, source in sources.items():
        loop.add_camera(name, source)
    loop._batching = batching
    loop.run(threading.Event())
    for name, scores in (("a", [1, 2, 3]), ("b", [101, 102, 103])):
        found = [result.score for item, result in recorder.verdicts if item.camera == name]
        assert found == scores


def test_reload_tries_a_model_before_it_replaces_the_old_one(
    write_model: WriteModel, tmp_path: Path, pictures: Path
) -> None:
    model = write_model("model.onnx")
    recorder = Recorder()
    document = {"model": str(model), "camera": [{"source": str(pictures)}], "stdout": False}
    with Stream(parse_config(document)) as stream:
        stream.delivery.add(recorder)
        slot = stream.models[0].slot
        old = slot.scorer

        def reload(**changes: Any) -> None:
            stream.reload(parse_config({**document, **changes}))

        def judge(value: int) -> Result:
            frame = np.full((48, 96, 3), value, np.uint8)
            return slot.score([CapturedFrame(number=0, frame=frame, camera=str(pictures))])[0]

        judge(80)
        reload()
        assert slot.scorer is old and recorder.events == []
        model.write_bytes(b"broken")
        reload()
        assert slot.scorer is old
        shutil.copy(write_model("nan.onnx", divisor=0.0), model)
        judge(0)  # 0 / 0 is no number
        reload()
        assert slot.scorer is old
        shutil.copy(write_model("half.onnx", divisor=2.0), model)
        reload()
        assert judge(80).score == 40
        reload(threshold=30.0)
        assert judge(80).anomalous
        reload()
        assert not judge(80).anomalous
    assert [event.kind for event in recorder.events] == [
        "model refused",
        "model refused",
        "model replaced",
        "threshold changed",
        "threshold changed",
    ]


def test_a_camera_that_changes_its_size_goes_on(
    model: Path, frames: Callable[..., list[Any]]
) -> None:
    recorder = Recorder()
    sizes = [(48, 96), (240, 320), (1080, 1920), (48, 96)]
    mixed = [frames(10 * index + 10, size=size)[0] for index, size in enumerate(sizes)]
    loop = Loop(ModelSlot(Scorer(model, threads=1)), Delivery([recorder]))
    loop.add_camera("a", FakeCamera(mixed, live=False))
    loop.run(threading.Event())
    assert [result.score for _, result in recorder.verdicts] == [10, 20, 30, 40]


def test_gstreamer_without_gstreamer() -> None:
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(CameraError, match="built without GStreamer"):
        open_source("videotestsrc ! videoconvert ! appsink")


def test_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"
        now = [0.0]
        watchdog = Watchdog(clock=lambda: now[0])
        now[0] = 5.0
        watchdog.look({"file": 3, "camera": 0})
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        watchdog.look({"file": 3, "camera": 1})
        assert manager.recv(100) == b"WATCHDOG=1"
        now[0] = 10.0
        watchdog.look({"camera": 1})
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        watchdog.look({"camera": 2})  # the file has ended: it need not turn any more
        assert manager.recv(100) == b"WATCHDOG=1"


def test_no_free_descriptor_for_systemd_ends_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(socket, "socket", none_left)
    assert not notify("WATCHDOG=1")
