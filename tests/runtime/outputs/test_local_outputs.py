"""Files, pictures and digital outputs: rotation, retention, full disks, pulses."""

import errno
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import (
    CapturedFrame,
    DataError,
    FakeCamera,
    JsonLines,
    ModelInfo,
    OverlayFolder,
    Result,
    Scorer,
    run_stream,
)
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs import Output, queued
from edge_ad_runtime.outputs.gpio import Digital
from edge_ad_runtime.outputs.json_file import JsonConfig, JsonFile, RotatingFile
from edge_ad_runtime.outputs.pictures import KeptPictures, Retention
from edge_ad_runtime.outputs.queued import Background

MakeFrames = Callable[..., list[Any]]
MakeVerdict = Callable[..., tuple[CapturedFrame, Result]]


def test_rotation_loses_no_line(tmp_path: Path, verdict: MakeVerdict) -> None:
    path = tmp_path / "logs" / "verdicts.jsonl"
    file = RotatingFile(path, max_bytes=1000, files=50)
    lines = JsonLines(file)
    for number in range(40):
        lines.write(*verdict(number))
    file.close()
    files = sorted(path.parent.iterdir(), key=lambda item: item.stat().st_mtime_ns)
    assert len(files) > 3 and all(item.stat().st_size <= 1000 for item in files)
    found = [json.loads(line)["frame"] for item in files for line in item.read_text().splitlines()]
    assert found == list(range(40))


def test_a_file_that_somebody_deletes_or_moves_is_begun_anew(
    tmp_path: Path, verdict: MakeVerdict
) -> None:
    """A line in a file without a name is a lost verdict."""
    path = tmp_path / "verdicts.jsonl"
    lines = JsonFile(JsonConfig(path=path))
    lines.write(*verdict(0))
    path.rename(tmp_path / "moved")
    lines.write(*verdict(1))
    assert json.loads(path.read_text())["frame"] == 1
    path.unlink()
    lines.write(*verdict(2))
    lines.close()
    assert json.loads(path.read_text())["frame"] == 2
    assert json.loads((tmp_path / "moved").read_text())["frame"] == 0


def test_two_streams_never_write_the_same_file(tmp_path: Path, verdict: MakeVerdict) -> None:
    """Each would rotate it under the other, and delete the other's lines."""
    config = JsonConfig(path=tmp_path / "verdicts.jsonl", max_mb=0.001)
    first = JsonFile(config)
    with pytest.raises(DataError, match="another stream writes its lines to"):
        JsonFile(config)
    for number in range(20):  # also behind a rotation
        first.write(*verdict(number))
    with pytest.raises(DataError, match="a file of its own"):
        JsonFile(config)
    first.close()
    JsonFile(config).close()


def test_rotation_keeps_so_many(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "a", max_bytes=10, files=2)
    for number in range(9):
        file.write(f"line {number}\n")
    file.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "a.1", "a.2"]
    assert (tmp_path / "a.2").read_text() == "line 6\n"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_drops_pictures_not_verdicts(tiny_disk: Path, model: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(150, 255, (300, 300, 3), dtype=np.uint8) for _ in range(60)]
    scorer = Scorer(model, threads=1)
    file = RotatingFile(tiny_disk / "verdicts.jsonl", max_bytes=10**6, files=2)
    outputs: list[Output] = [JsonLines(file), OverlayFolder(tiny_disk / "kept", scorer.info)]
    summary = run_stream(FakeCamera(frames, live=False), scorer, outputs)
    file.close()
    lines = [json.loads(line) for line in (tiny_disk / "verdicts.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines if "frame" in line] == list(range(60))
    assert [line["event"] for line in lines if "event" in line] == ["output failed"]
    assert 0 < len(list((tiny_disk / "kept").iterdir())) < 60
    assert summary.frames == 60 and summary.lost_outputs > 0
    assert not list((tiny_disk / "kept").glob(".*"))


def test_a_torn_line_is_taken_back(tiny_disk: Path) -> None:
    file = RotatingFile(tiny_disk / "lines", max_bytes=10**9, files=2)
    (tiny_disk / "fill").write_bytes(b"0" * 900_000)
    with pytest.raises(OSError, match="No space") as caught:
        for _ in range(9):
            file.write("x" * 50_000 + "\n")
    assert caught.value.errno == errno.ENOSPC
    (tiny_disk / "fill").unlink()
    file.write("whole\n")
    file.close()
    lines = (tiny_disk / "lines").read_text().splitlines()
    assert lines[-1] == "whole" and {len(line) for line in lines[:-1]} <= {50_000}


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Retention(max_count=3), [7, 8, 9]),
        (Retention(max_mb=0.0025), [8, 9]),
        (Retention(max_days=2.5 / 86_400), [7, 8, 9]),
        (Retention(), list(range(10))),
    ],
)
def test_retention(tmp_path: Path, limits: Retention, left: list[int]) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"not ours")
    now = [0.0]
    retention = KeptPictures(tmp_path, limits, now=lambda: now[0])
    for number in range(10):
        now[0] = float(number)
        path = tmp_path / f"{number:06d}-a.jpg"
        path.write_bytes(b"0" * 1000)
        retention.add(path, 1000)
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        *(f"{number:06d}-a.jpg" for number in left),
        "holiday.jpg",
    ]


def test_retention_knows_the_pictures_of_earlier_runs(
    tmp_path: Path, info: ModelInfo, verdict: MakeVerdict
) -> None:
    for number in range(5):
        path = tmp_path / f"{number:06d}-\nold.jpg"
        path.write_bytes(b"0")
        os.utime(path, (number, number))
    output = OverlayFolder(tmp_path, info, retention=Retention(max_count=3), by_camera=True)
    output.write(*verdict(7))
    names = sorted(item.relative_to(tmp_path).parts[0] for item in tmp_path.iterdir())
    assert names == ["000003-\nold.jpg", "000004-\nold.jpg", "left"]


@pytest.mark.parametrize(("keep", "count"), [("good", 1), ("anomalous", 2), ("all", 3)])
def test_which_pictures_are_kept(
    tmp_path: Path, info: ModelInfo, keep: str, count: int, verdict: MakeVerdict
) -> None:
    output = OverlayFolder(tmp_path, info, keep=keep)
    for number, anomalous in enumerate((True, False, True)):
        output.write(*verdict(number, anomalous=anomalous))
    assert len(list(tmp_path.iterdir())) == count


class Slow(Output):
    """An output that waits for its release."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.taken: list[int] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.release.wait(60)
        self.taken.append(captured.number)


def test_a_slow_output_never_holds_up_the_stream(verdict: MakeVerdict) -> None:
    slow = Slow()
    output = Background(slow, limit=2)
    failures = 0
    for number in range(10):
        try:
            output.write(*verdict(number))
        except OSError:
            failures += 1
    slow.release.set()
    output.close()
    assert failures >= 7
    assert slow.taken[-2:] == [8, 9]
    assert len(slow.taken) + failures == 10


def test_with_files_the_stream_waits_for_a_slow_output(verdict: MakeVerdict) -> None:
    slow = Slow()
    output = Background(slow, limit=2, wait=True)
    threading.Timer(0.1, slow.release.set).start()
    for number in range(10):
        output.write(*verdict(number))
    output.close()
    assert slow.taken == list(range(10))


def test_the_last_pictures_of_files_are_waited_for(
    verdict: MakeVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight large pictures take a small device longer than the end of a live stream may."""
    monkeypatch.setattr(queued, "_CLOSE_SECONDS", 0.0)
    slow = Slow()
    output = Background(slow, wait=True)
    for number in range(8):
        output.write(*verdict(number))
    threading.Timer(0.1, slow.release.set).start()
    output.close()
    assert slow.taken == list(range(8))


class FakeLine:
    """A line of a chip, on paper."""

    def __init__(self) -> None:
        self.levels: list[bool] = []
        self.released = False

    def set(self, active: bool) -> None:
        self.levels.append(active)

    def release(self) -> None:
        self.released = True


def test_a_pulse_for_each_anomalous_verdict(verdict: MakeVerdict) -> None:
    line = FakeLine()
    output = Digital(line, pulse_ms=30)
    output.write(*verdict(0, anomalous=False))
    assert line.levels == [False]
    started = time.monotonic()
    output.write(*verdict(1))
    while line.levels != [False, True, False]:
        assert time.monotonic() - started < 60
        time.sleep(0.001)
    assert time.monotonic() - started >= 0.03
    output.close()
    assert line.released and line.levels[-1] is False


def test_a_level_while_any_alarm_is_on(verdict: MakeVerdict) -> None:
    line = FakeLine()
    output = Digital(line, on="alarm")
    for kind, camera in (
        ("alarm on", "a"),
        ("alarm on", "b"),
        ("alarm off", "a"),
        ("alarm off", "b"),
    ):
        output.event(Event(kind=kind, message="", camera=camera))  # type: ignore[arg-type]
    output.write(*verdict())
    output.close()
    assert line.levels == [False, True, True, True, False, False]


def test_a_chip_that_goes_during_a_pulse_is_told_by_the_next_verdict(verdict: MakeVerdict) -> None:
    class Fragile(FakeLine):
        def set(self, active: bool) -> None:
            super().set(active)
            if self.levels == [False, True, False]:
                raise OSError("the chip has gone")

    line = Fragile()
    output = Digital(line, pulse_ms=1)
    output.write(*verdict(0))
    deadline = time.monotonic() + 60
    while len(line.levels) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    with pytest.raises(OSError, match="the chip has gone"):
        output.write(*verdict(1))
    output.close()
    assert line.released


def test_a_pulse_that_cannot_be_prolonged_ends(verdict: MakeVerdict) -> None:
    class Fragile(FakeLine):
        def set(self, active: bool) -> None:
            super().set(active)
            if self.levels == [False, True, True]:
                raise OSError("the chip was busy")

    line = Fragile()
    output = Digital(line, pulse_ms=200)
    output.write(*verdict(0))
    with pytest.raises(OSError, match="busy"):
        output.write(*verdict(1))
    deadline = time.monotonic() + 60
    while line.levels[-1]:
        assert time.monotonic() < deadline, "the ejector stays on"
        time.sleep(0.001)
    output.close()


@pytest.mark.parametrize("kind", ["folder", "fifo", "missing parent that is a file"])
def test_a_path_that_no_file_of_lines_can_have(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("")
        path = path / "b"
    with pytest.raises(DataError, match="choose another"):
        RotatingFile(path, max_bytes=10, files=1)
