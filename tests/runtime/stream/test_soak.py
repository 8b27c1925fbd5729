"""Months in a minute: memory and file descriptors stay flat over very many frames.

EDGE_AD_SOAK_FRAMES sets how many; half of them warm up, the other half must not grow. The frames
pass through a process of their own: what other tests left behind would move in its memory.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_ad_runtime import FakeCamera, Frame, JsonLines, OverlayFolder, Scorer
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.outputs.json_file import RotatingFile
from edge_ad_runtime.outputs.pictures import Retention
from edge_ad_runtime.outputs.queued import Background
from edge_ad_runtime.stream.drift import Drift
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.model_slot import ModelSlot
from edge_ad_runtime.stream.watchers import Alarm, AlarmRule, Overload

FRAMES = int(os.environ.get("EDGE_AD_SOAK_FRAMES", "100000"))
MOST_GROWTH = 2_000_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def soak(model: Path, folder: Path) -> dict[str, list[int]]:
    """Score all frames; measure resident bytes and descriptors half-way and at the end."""
    measured: list[tuple[int, int]] = []

    def frames() -> Iterator[Frame]:
        prepared = [np.full((48, 96, 3), 40 + index, np.uint8) for index in range(8)]
        anomalous = np.full((48, 96, 3), 200, np.uint8)
        for number in range(FRAMES):
            if number in (FRAMES // 2, FRAMES - 1):
                measured.append((resident_bytes(), descriptors()))
            yield anomalous if number % 100 == 0 else prepared[number % 8]

    scorer = Scorer(model, threads=1)
    file = RotatingFile(folder / "verdicts.jsonl", max_bytes=500_000, files=3)
    kept = OverlayFolder(folder / "kept", scorer.info, retention=Retention(max_count=50))
    delivery = Delivery([JsonLines(file), Background(kept, wait=True)])
    loop = Loop(ModelSlot(scorer), delivery)
    feed = loop.add_camera("left", FakeCamera(frames(), live=False))
    loop.add_monitor("left", Drift(lambda: scorer.info))
    loop.add_monitor("left", Overload(lambda: feed.skipped))
    loop.add_monitor("left", Alarm(AlarmRule(frames=2, window=5), lambda: 50.0))
    loop.run(threading.Event())
    delivery.close()
    file.close()
    memory, files = zip(*measured, strict=True)
    return {"scored": [loop.tally.frames], "memory": list(memory), "files": list(files)}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_memory_and_descriptors_stay_flat(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(model), str(tmp_path)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(output)
    assert found["scored"] == [FRAMES]
    before, after = found["memory"]
    assert after - before < MOST_GROWTH
    before, after = found["files"]
    assert after <= before
    assert len(list((tmp_path / "kept").iterdir())) == 50


if __name__ == "__main__":
    print(json.dumps(soak(Path(sys.argv[1]), Path(sys.argv[2]))))
