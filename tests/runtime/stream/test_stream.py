"""Reader and run_stream: order, newest frame wins, failures, ends. No sleeps: events decide."""

import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import (
    CameraError,
    CapturedFrame,
    ConfigError,
    DataError,
    DeviceError,
    FakeCamera,
    Frame,
    JsonLines,
    Reader,
    Result,
    Scorer,
    run_stream,
)
from edge_ad_runtime.outputs import Output

MakeFrames = Callable[..., list[Any]]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)


class Mean:
    """A scorer: the mean of the frame, anomalous from 100 on; calls back before each frame."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.before = before
        self.scores: list[float] = []

    def score(self, frame: Frame) -> Result:
        self.before()
        score = float(frame.mean())
        if score == 13:
            raise DataError("bad frame")
        self.scores.append(score)
        return Result(
            score=score,
            anomalous=score >= 100,
            threshold=100.0,
            anomaly_map=np.zeros((2, 2), np.float32),
            latency_ms=1.0,
        )


def wait_ended(reader: Reader) -> None:
    """Until the source has been read to its end."""
    reader._thread.join(60)
    assert not reader._thread.is_alive()


def test_every_frame_of_a_file_in_order(frames: MakeFrames) -> None:
    scorer = Mean()
    camera = FakeCamera(frames(*range(50)), live=False)
    summary = run_stream(camera, scorer)
    assert scorer.scores == list(range(13)) + list(range(14, 50))
    assert (summary.frames, summary.failed, summary.skipped) == (49, 1, 0)
    assert summary.latency_p50_ms == 1.0


def test_the_newest_frame_of_a_camera_wins(frames: MakeFrames) -> None:
    with Reader(FakeCamera(frames(1, 2, 3, 4))) as reader:
        wait_ended(reader)
        captured = reader.take()
        assert captured is not None
        assert (captured.number, captured.frame.mean()) == (3, 4)
        assert reader.skipped == 3
        assert reader.take() is None
        assert reader.ended


def test_every_counts_the_frames_since_the_last_one_kept(frames: MakeFrames) -> None:
    """Whoever takes frames is late now and then; the wanted frame still waits for him."""
    taken = []
    source = FakeCamera(itertools.chain.from_iterable(frames(*range(100)) for _ in range(4)))
    with Reader(source, every=8) as reader:
        wait_ended(reader)
        while (captured := reader.take()) is not None:
            taken.append(captured.number)
    assert taken == [392] and reader.skipped == 49, "only wanted frames are counted as skipped"
    with Reader(FakeCamera(frames(*range(55)), live=False), every=8) as reader:
        numbers = []
        while (captured := reader.take()) is not None:
            numbers.append(captured.number)
    assert numbers == [0, 8, 16, 24, 32, 40, 48]


def test_a_slow_scorer_skips_and_counts(frames: MakeFrames) -> None:
    first_taken, all_delivered = threading.Event(), threading.Event()

    def deliver() -> Iterator[Frame]:
        yield from frames(1)
        assert first_taken.wait(60)
        yield from frames(2, 3, 4, 5)
        all_delivered.set()

    def before() -> None:
        first_taken.set()
        assert all_delivered.wait(60)

    scorer = Mean(before)
    summary = run_stream(FakeCamera(deliver()), scorer)
    assert scorer.scores == [1, 5]
    assert (summary.frames, summary.skipped) == (2, 3)


def test_files_are_read_ahead_by_a_few_frames_only(frames: MakeFrames) -> None:
    delivered = []

    def deliver() -> Iterator[Frame]:
        for index, frame in enumerate(frames(*range(60, 90))):
            delivered.append(index)
            yield frame

    ahead = []
    run_stream(
        FakeCamera(deliver(), live=False),
        scorer := Mean(lambda: ahead.append(len(delivered) - len(scorer.scores))),
    )
    assert len(scorer.scores) == 30
    assert max(ahead) <= 6


def test_a_lost_frame_is_counted_and_the_stream_goes_on(
    frames: MakeFrames, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = frames(1, 2)
    camera = FakeCamera([one, DataError("torn"), two], live=False)
    summary = run_stream(camera, scorer := Mean())
    assert scorer.scores == [1, 2]
    assert summary.failed == 1
    assert "torn" in caplog.text


def test_a_wrong_frame_of_a_file_is_one_lost_frame(model: Path, frames: MakeFrames) -> None:
    one, two = frames(1, 2)
    camera = FakeCamera([one, np.zeros((4, 4)), two], live=False)  # type: ignore[list-item]
    summary = run_stream(camera, Scorer(model, threads=1))
    assert (summary.frames, summary.failed, summary.camera_error) == (2, 1, None)


def test_a_lost_camera_ends_the_stream_after_its_frames(frames: MakeFrames) -> None:
    camera = FakeCamera([*frames(1, 2), CameraError("unplugged")], live=False)
    summary = run_stream(camera, Mean())
    assert summary.frames == 2
    assert str(summary.camera_error) == "unplugged"


@pytest.mark.parametrize(
    ("source", "outputs", "message"),
    [
        ("parts", [], "expected an open source, got str: open it with open_source"),
        (
            FakeCamera([]),
            [print],
            r"write\(captured, result\), got <built-in function print>",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused(source: Any, outputs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_stream(source, Mean(), outputs)


def test_a_captured_frame_shows_no_pixels(frames: MakeFrames) -> None:
    captured = FakeCamera(frames(7)).read()
    assert "number=0" in repr(captured) and "array" not in repr(captured)


def test_max_frames(frames: MakeFrames) -> None:
    assert run_stream(FakeCamera(frames(*range(9)), live=False), Mean(), max_frames=3).frames == 3


def test_stop_ends_a_camera_that_delivers_nothing() -> None:
    release, stop = threading.Event(), threading.Event()

    def deliver() -> Iterator[Frame]:
        stop.set()
        release.wait(60)
        yield from ()

    timer = threading.Timer(0.5, release.set)
    timer.start()
    summary = run_stream(FakeCamera(deliver()), Mean(), stop=stop)
    timer.join()
    assert summary.frames == 0
    assert summary.latency_p50_ms is None


def test_a_reader_whose_source_has_ended_is_not_ready(frames: MakeFrames) -> None:
    changed = threading.Condition()
    with Reader(FakeCamera(frames(1), live=False), changed=changed) as reader:
        wait_ended(reader)
        with changed:
            assert reader.ready
        assert reader.take() is not None
        with changed:
            assert not reader.ready, "a loop that waits for it would spin"
        assert reader.ended and reader.take() is None


def test_a_fault_in_a_source_is_not_an_end() -> None:
    def deliver() -> Iterator[Frame]:
        raise ZeroDivisionError
        yield

    summary = run_stream(FakeCamera(deliver()), Mean())
    assert "broke off with an unexpected ZeroDivisionError" in str(summary.camera_error)


def test_a_failing_device_is_raised(frames: MakeFrames) -> None:
    def fail() -> None:
        raise DeviceError("gone")

    with pytest.raises(DeviceError):
        run_stream(FakeCamera(frames(1)), Mean(fail))


class Full(Output):
    """An output on a full disk, or with nobody behind the pipe."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def write(self, captured: CapturedFrame, result: Result) -> None:
        raise self.error


def test_a_failing_output_loses_nothing_but_its_own(frames: MakeFrames) -> None:
    written = io.StringIO()
    outputs: list[Output] = [Full(OSError("disk full")), JsonLines(written, camera="c")]
    summary = run_stream(FakeCamera(frames(1, 2), live=False), Mean(), outputs)
    assert (summary.frames, summary.lost_outputs) == (2, 2)
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line.get("event", "verdict") for line in found] == [
        "output failed",
        "verdict",
        "verdict",
    ]
    assert "2 verdicts lost" in str(summary)


def test_a_closed_pipe_ends_the_stream(frames: MakeFrames) -> None:
    camera = FakeCamera(frames(1, 2), live=False)
    summary = run_stream(camera, Mean(), [Full(BrokenPipeError())])
    assert summary.output_closed
    assert summary.frames == 1


def test_json_lines(frames: MakeFrames) -> None:
    written = io.StringIO()
    camera = FakeCamera(frames(120), live=False, name="left", now=lambda: MOMENT)
    run_stream(camera, Mean(), [JsonLines(written, camera="left")])
    assert json.loads(written.getvalue()) == {
        "frame": 0,
        "camera": "left",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "score": 120.0,
        "threshold": 100.0,
        "anomalous": True,
        "p_value": None,
        "regions": [],
        "latency_ms": 1.0,
    }


def test_with_a_model_file(model: Path, frames: MakeFrames) -> None:
    summary = run_stream(FakeCamera(frames(50, 150), live=False), Scorer(model))
    assert (summary.frames, summary.anomalous) == (2, 1)
