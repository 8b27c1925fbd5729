"""Faults that no other file has: clock jumps, SIGHUP to a running process, long videos."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edge_ad_runtime import CapturedFrame, ModelInfo, Result, Scorer, open_source, run_stream

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


# The clock of the day jumps at each look, for everything that is imported after it.
JUMPING_CLOCK = """
import datetime, itertools, time

DAYS = itertools.cycle((0, 4000, -4000, 0.001, -0.0005))
real, now = time.time, datetime.datetime.now
time.time = lambda: real() + 86400 * next(DAYS)
time.time_ns = lambda: int(time.time() * 1e9)

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return now(tz) + datetime.timedelta(days=next(DAYS))

datetime.datetime = Jumping

import json, sys, threading
import numpy as np
from edge_ad_runtime import FakeCamera, Scorer, run_stream

events, verdicts, pauses = [], [], []

class Recorder:
    def write(self, captured, result):
        verdicts.append((captured.timestamp.year, result.latency_ms))
        if len(verdicts) == 100:
            stop.set()

    def event(self, event):
        events.append(event.kind)

    def close(self):
        pass

def moving():
    for number in itertools.count():
        before = time.perf_counter()
        time.sleep(0.005)
        pauses.append(time.perf_counter() - before)
        yield np.full((48, 96, 3), number % 90, np.uint8)

stop = threading.Event()
opened = lambda: FakeCamera(moving())
summary = run_stream(
    opened(), Scorer(sys.argv[1], threads=1), [Recorder()], stop=stop, reopen=opened
)
print(json.dumps({
    "events": events, "longest_pause": max(pauses),
    "failed": summary.failed, "seconds": summary.seconds,
    "years": len({year for year, _ in verdicts}),
    "latencies": all(0 <= latency < 60_000 for _, latency in verdicts),
}))
"""


def test_a_jump_of_the_clock_changes_timestamps_only(model: Path) -> None:
    """A live camera that is watched for stalls: jumps by years must not look like one."""
    done = subprocess.run(
        [sys.executable, "-c", JUMPING_CLOCK, str(model)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    assert found["years"] > 1, "the clock did jump"
    # A machine that stands still for five seconds is a stall, whatever the clock says.
    assert found["events"] == [] or found["longest_pause"] > 4
    assert found["failed"] == 0
    assert 0 < found["seconds"] < 100 and found["latencies"]


def test_hangup_reloads_a_running_stream_without_losing_a_frame(
    write_model: Callable[..., Path], pictures: Path, info: ModelInfo
) -> None:
    model = write_model("model.onnx")
    # Of a later export, as a new model is: the same one with other scores would be a drift.
    later = replace(info, created_at="2026-02-02T03:04:05Z").to_metadata()
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
        os.replace(write_model("half.onnx", divisor=2.0, metadata=later), model)
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
