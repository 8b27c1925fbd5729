"""Faults that no other file has: clock jumps, SIGHUP to a running process, long videos."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edge_ad_runtime import CapturedFrame, FakeCamera, Result, Scorer, open_source, run_stream

RUN = "from edge_ad.cli import main; main()"


class Recorder:
    def __init__(self) -> None:
        self.found: list[tuple[CapturedFrame, Result]] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.found.append((captured, result))


def test_a_video_of_a_thousand_frames_gives_a_thousand_results_in_order(
    model: Path, write_video: Callable[[str, Sequence[int]], Path]
) -> None:
    values = [number * 7 % 200 for number in range(1000)]
    recorder = Recorder()
    video = write_video("parts.avi", values)
    run_stream(open_source(str(video)), Scorer(model, threads=1), [recorder])
    assert [captured.number for captured, _ in recorder.found] == list(range(1000))
    for value, (_, result) in zip(values, recorder.found, strict=True):
        assert abs(result.score - value) < 4


def test_a_jump_of_the_clock_changes_timestamps_only(
    model: Path, frames: Callable[..., list[Any]]
) -> None:
    moments = iter(
        datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=days)
        for days in (0, 4000, -4000, 0, 1)
    )
    recorder = Recorder()
    camera = FakeCamera(frames(10, 20, 30, 40, 50), live=False, now=lambda: next(moments))
    summary = run_stream(camera, Scorer(model, threads=1), [recorder], reopen=lambda: camera)
    assert [result.score for _, result in recorder.found] == [10, 20, 30, 40, 50]
    assert summary.failed == 0 and summary.seconds < 60
    assert all(0 <= result.latency_ms < 60_000 for _, result in recorder.found)


def test_hangup_reloads_a_running_stream_without_losing_a_frame(
    write_model: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    model = write_model("model.onnx")
    for index in range(4000):
        os.link(pictures / "099.png", pictures / f"9{index:05}.png")
    command = [sys.executable, "-c", RUN, "stream", "--camera", str(pictures)]
    with subprocess.Popen(
        [*command, "--model", str(model), "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline()]
        while '"score": 99.0' not in lines[-1]:
            lines.append(process.stdout.readline())
        os.replace(write_model("half.onnx", divisor=2.0), model)
        process.send_signal(signal.SIGHUP)
        replaced = False
        for line in process.stdout:
            lines.append(line)
            if not replaced and '"model replaced"' in line:
                replaced = True
                model.write_bytes(b"broken")
                process.send_signal(signal.SIGHUP)
        log = process.stderr.read()
        assert process.wait(60) == 0, log
    found = [json.loads(line) for line in lines]
    verdicts = [line for line in found if "event" not in line]
    assert [line["frame"] for line in verdicts] == list(range(4005))
    assert {99.0, 49.5} <= {line["score"] for line in verdicts}
    kinds = [line["event"] for line in found if "event" in line]
    assert kinds == ["model replaced", "model refused"]
    assert "Traceback" not in log
