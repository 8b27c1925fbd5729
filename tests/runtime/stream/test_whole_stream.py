"""A whole stream: what it owns it closes, what breaks off is told, and a stop always ends it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import (
    CapturedFrame,
    DataError,
    EdgeAdError,
    FakeCamera,
    Frame,
    Result,
    Stream,
    StuckError,
)
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.stream import build, loops
from edge_ad_runtime.stream import stream as stream_module
from edge_ad_runtime.stream.config import parse_config
from edge_ad_runtime.stream.model_slot import ModelSlot
from edge_ad_runtime.stream.watchers import Overload

RUN = "from edge_ad.cli import main; main()"


class Source(FakeCamera):
    """Tells whether it was closed, and how many frames it gave."""

    closed = False
    given = 0

    def read(self) -> CapturedFrame | None:
        self.given += 1
        return super().read()

    def close(self) -> None:
        self.closed = True


class Recorder:
    def __init__(self) -> None:
        self.verdicts: list[CapturedFrame] = []
        self.events: list[Event] = []
        self.closed = False

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.verdicts.append(captured)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


def moving(release: threading.Event) -> Iterator[Frame]:
    number = 0
    while not release.wait(0.005):
        number += 1
        yield np.full((48, 96, 3), number % 90, np.uint8)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Source]]:
    """Every camera is a fake one that moves until the test has ended."""
    opened: list[Source] = []
    release = threading.Event()

    def open_fake(spec: str, *_: Any, **__: Any) -> Source:
        opened.append(Source(moving(release), name=spec))
        return opened[-1]

    monkeypatch.setattr(build, "open_source", open_fake)
    yield opened
    release.set()


def document(*models: Path, **more: Any) -> dict[str, Any]:
    cameras = [
        {"name": f"camera {index}", "source": str(index), "model": str(model)}
        for index, model in enumerate(models)
    ]
    # Without it, a machine that stands still for seconds loses every camera.
    return {"camera": cameras, "threads": 1, "stdout": False, "stall_timeout": 0, **more}


def wait(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_outputs_that_cannot_be_built_leave_nothing_open(
    model: Path, tmp_path: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    close = Delivery.close

    def note(delivery: Delivery) -> None:
        closed.append(1)
        close(delivery)

    monkeypatch.setattr(Delivery, "close", note)
    (tmp_path / "file").touch()
    impossible = {
        "json": {"path": str(tmp_path / "lines.jsonl")},
        "pictures": {"folder": str(tmp_path / "file/kept")},
    }
    with pytest.raises(DataError, match="cannot write"):
        Stream(parse_config(document(model, model, **impossible)))
    assert [source.closed for source in sources] == [True, True] and closed == [1]


def test_a_stream_that_never_runs_closes_its_cameras(model: Path, sources: list[Source]) -> None:
    with Stream(parse_config(document(model, model))) as stream:
        assert not any(source.closed for source in sources)
    assert all(source.closed for source in sources)
    stream.close()


def test_a_loop_that_breaks_off_is_told_and_ends_the_stream(
    model: Path,
    write_model: Callable[..., Path],
    sources: list[Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder, score, count = Recorder(), ModelSlot.score, [0]

    def score_badly(slot: ModelSlot, batch: Any) -> list[Result]:
        if batch[0].camera == "camera 1":
            count[0] += 1
            if count[0] > 5:
                raise ZeroDivisionError
        return score(slot, batch)

    monkeypatch.setattr(ModelSlot, "score", score_badly)
    with Stream(parse_config(document(model, write_model("other.onnx")))) as stream:
        stream.delivery.add(recorder)
        with pytest.raises(EdgeAdError, match="unexpected ZeroDivisionError"):
            stream.run(threading.Event())
    assert [event.kind for event in recorder.events] == ["thread failed"]
    assert recorder.closed and all(source.closed for source in sources)


def test_no_trigger_is_forgotten_when_a_loop_breaks_off(
    model: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()

    def break_off(slot: ModelSlot, batch: Any) -> list[Result]:
        raise ZeroDivisionError

    monkeypatch.setattr(ModelSlot, "score", break_off)
    more = {"trigger": {"mode": "http"}, "serve": {"port": 0}}
    with Stream(parse_config(document(model, **more))) as stream:
        stream.delivery.add(recorder)
        assert stream.triggers is not None
        for identity in ("a", "b", "c"):
            stream.triggers.request(identity)
        with pytest.raises(EdgeAdError, match="fault in the program"):
            stream.run(threading.Event())
    failed = [event for event in recorder.events if event.kind == "trigger failed"]
    assert [event.details["trigger"] for event in failed] == ["a", "b", "c"]


def test_frames_between_triggers_are_no_overload(
    model: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "Overload", partial(Overload, seconds=0.0))
    recorder, stop = Recorder(), threading.Event()
    more = {"trigger": {"mode": "http"}, "serve": {"port": 0}}
    with Stream(parse_config(document(model, **more))) as stream:
        stream.delivery.add(recorder)
        running = threading.Thread(target=stream.run, args=(stop,))
        running.start()
        assert stream.triggers is not None
        for _ in range(3):
            passed, judged = sources[0].given + 10, len(recorder.verdicts)
            wait(partial(lambda passed: sources[0].given > passed, passed))
            stream.triggers.request("part")
            wait(partial(lambda judged: len(recorder.verdicts) > judged, judged))
        stop.set()
        running.join(60)
    assert "overload" not in {event.kind for event in recorder.events}


def test_a_stop_ends_a_stream_although_an_output_never_returns(
    model: Path, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "_STOP_SECONDS", 0.3)
    stop, hanging, release = threading.Event(), threading.Event(), threading.Event()

    class Hanging:
        def write(self, captured: CapturedFrame, result: Result) -> None:
            hanging.set()
            release.wait(120)

    stream = Stream(parse_config(document(model)))
    stream.delivery.add(Hanging())

    def stop_it() -> None:
        hanging.wait(60)
        stop.set()

    threading.Thread(target=stop_it).start()
    started = time.monotonic()
    with pytest.raises(StuckError, match="edge-ad loop 0 did not end"), stream:
        stream.run(stop)
    assert not release.is_set() and time.monotonic() - started < 100
    release.set()


def test_many_drivers_that_hang_do_not_keep_a_stream_from_ending(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, stop = threading.Event(), threading.Event()
    close, waits = Feed.close, list[float]()

    def hang() -> Iterator[Frame]:
        release.wait(60)
        yield from ()

    def note(feed: Feed, wait: float) -> None:
        waits.append(wait)
        close(feed, wait)

    monkeypatch.setattr(build, "open_source", lambda *_, **__: FakeCamera(hang()))
    monkeypatch.setattr(Feed, "close", note)
    with Stream(parse_config(document(*[model] * 12))) as stream:
        threading.Timer(0.3, stop.set).start()
        stream.run(stop)
    assert not release.is_set() and len(waits) == 24
    assert sum(waits) < 2, "not a second for each of the twelve"
    release.set()


def test_an_output_that_cannot_be_closed_leaves_no_other_open(
    model: Path, sources: list[Source]
) -> None:
    class Failing(Recorder):
        def __init__(self, error: Exception) -> None:
            super().__init__()
            self.error = error

        def close(self) -> None:
            raise self.error

    outputs = [Recorder(), Failing(OSError("gone")), Recorder(), Failing(ValueError()), Recorder()]
    stream, stop = Stream(parse_config(document(model))), threading.Event()
    for output in outputs:
        stream.delivery.add(output)
    stop.set()
    with pytest.raises(ValueError):
        stream.run(stop)
    assert [output.closed for output in outputs[::2]] == [True] * 3
    assert [event.kind for event in outputs[0].events] == ["output failed"]


def test_a_reader_that_has_gone_costs_the_other_outputs_no_verdict(
    model: Path, sources: list[Source]
) -> None:
    class Gone:
        def write(self, captured: CapturedFrame, result: Result) -> None:
            raise BrokenPipeError

    recorder = Recorder()
    with Stream(parse_config(document(model))) as stream:
        stream.delivery.add(Gone())
        stream.delivery.add(recorder)
        summary = stream.run(threading.Event())
    assert summary.output_closed and summary.frames == len(recorder.verdicts) == 1


def test_a_damaged_model_is_refused_and_every_later_good_one_is_taken(
    write_model: Callable[..., Path], sources: list[Source]
) -> None:
    model, recorder = write_model("model.onnx"), Recorder()
    good = [write_model("half.onnx", divisor=2.0), write_model("third.onnx", divisor=3.0)]
    whole = good[0].read_bytes()
    damaged = [b"", b"\0" * 1000, whole[: len(whole) // 2], *_flipped(whole, 25)]
    config = parse_config(document(model))
    frame = np.full((48, 96, 3), 60, np.uint8)
    batch = [CapturedFrame(number=0, frame=frame, camera="camera 0")]
    with Stream(config) as stream:
        stream.delivery.add(recorder)
        for number, data in enumerate(damaged):
            model.write_bytes(data)
            stream.reload(config)
            shutil.copy(good[number % 2], model)
            stream.reload(config)
            assert stream.models[0].slot.score(batch)[0].score == pytest.approx(
                60 / (2 + number % 2)
            )
    kinds = [event.kind for event in recorder.events]
    assert len(kinds) == 2 * len(damaged) and kinds[1::2] == ["model replaced"] * len(damaged)
    # A bit in a name leaves a good model; half a file, or none, never does.
    assert kinds[0:6:2] == ["model refused"] * 3
    assert kinds.count("model refused") > 10


def _flipped(data: bytes, count: int) -> list[bytes]:
    """Copies of a model file, each with one bit of its metadata flipped."""
    start = data.index(b'"backbone"')
    flipped = []
    for number in range(count):
        copy = bytearray(data)
        copy[start + 17 * number % 300] ^= 1 << number % 8
        flipped.append(bytes(copy))
    return flipped


def test_a_model_with_no_number_as_limit_is_refused(
    write_model: Callable[..., Path], sources: list[Source]
) -> None:
    model, recorder = write_model("model.onnx"), Recorder()
    whole = model.read_bytes()
    config = parse_config(document(model))
    with Stream(config) as stream:
        stream.delivery.add(recorder)
        for text in (b"NaN  ", b"1e999", b"null ", b'"100"', b"true "):
            model.write_bytes(whole.replace(b'"threshold": 100.0', b'"threshold": ' + text))
            stream.reload(config)
        assert stream.info_of("camera 0").threshold == 100
    assert {event.kind for event in recorder.events} == {"model refused"}


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", RUN, "stream", *(str(item) for item in arguments)]


def test_a_picture_too_tall_for_jpeg_ends_no_stream_of_files(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    cv2.imwrite(str(pictures / "160.png"), np.full((66_000, 8, 3), 160, np.uint8))
    for number in range(30):
        os.link(pictures / "200.png", pictures / f"3{number:02}.png")
    done = subprocess.run(
        _command("--camera", pictures, "--model", model, "--output", tmp_path / "kept"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum("event" not in line for line in verdicts) == 36
    assert "Traceback" not in done.stderr


def is_stuck(pipe: IO[bytes]) -> bool:
    """Whether a pipe is full, and nothing more can be written to it."""
    import fcntl  # POSIX only
    import termios

    def waiting() -> int:
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)

    before = waiting()
    time.sleep(0.5)
    return waiting() == before > 60_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes of POSIX")
@pytest.mark.slow
def test_a_stop_ends_a_stream_of_files_whose_reader_is_stuck(model: Path, pictures: Path) -> None:
    """Files wait for a slow reader of stdout; a signal does not."""
    for index in range(3000):
        os.link(pictures / "000.png", pictures / f"{index:05}.png")
    with subprocess.Popen(
        _command("--camera", pictures, "--model", model),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None and process.stdout is not None
            full = process.stdout
            wait(lambda: is_stuck(full), 60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 1
            log = process.stderr.read().decode()
        finally:
            process.kill()
    assert "did not end within" in log and "Traceback" not in log and "Fatal" not in log


def test_stdout_that_was_closed_at_the_start(model: Path, pictures: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    command = _command("--camera", pictures, "--model", model, "--json-file", lines)
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert len(lines.read_text().splitlines()) == 5


def test_the_reader_of_stderr_has_gone(model: Path, pictures: Path) -> None:
    """A log collector that is started again costs no verdict."""
    gone, stderr = os.pipe()
    os.close(gone)
    with open(stderr, "wb") as broken:
        done = subprocess.run(
            _command("--camera", pictures, "--model", model),
            stdout=subprocess.PIPE,
            stderr=broken,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 5


def test_triggers_by_a_stdin_that_was_closed_at_the_start(model: Path, pictures: Path) -> None:
    command = _command("--camera", pictures, "--model", model, "--trigger", "stdin")
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1 and "standard input is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stop_while_stdin_waits_for_a_trigger(model: Path, plugin: Path) -> None:
    """The end of Python must not meet a thread that holds the lock of standard input."""
    command = _command("--camera", "left=quick:left", "--model", model, "--trigger", "stdin")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(plugin)},
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"one\n\xff\ntwo\n")
            process.stdin.flush()
            found = [json.loads(process.stdout.readline()) for _ in range(3)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert process.stderr is not None
            log = process.stderr.read().decode()
        finally:
            process.kill()
    assert sorted(line["trigger"] for line in found if "event" not in line) == ["one", "two"]
    assert [line["event"] for line in found if "event" in line] == ["trigger failed"]
    assert "Fatal" not in log and "Traceback" not in log
