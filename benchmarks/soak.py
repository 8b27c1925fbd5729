"""Four RTSP cameras under random faults for hours: are memory, threads and descriptors flat?

    python benchmarks/soak.py --model cable.onnx --minutes 60

Four VLC processes serve videos, one `edge-ad stream` reads them. Every few seconds one of the
cameras is killed, frozen, or replaced by one of another size, for up to twenty seconds. Prints one
table; ends with exit code 1 if a camera did not come back or the last quarter of the run needed
more than the second.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

RUN = "from edge_ad.cli import main; main()"
SIZES = [(320, 240), (480, 272)]
FAULTS = ("killed", "frozen", "another size")
FRAMES_PER_SECOND = 10
SAMPLE_SECONDS = 10.0
GROWTH = {"memory MB": 10.0, "threads": 1.0, "descriptors": 2.0}
"""How much the mean of the last quarter may exceed that of the second one."""


class Camera:
    """A VLC process that serves one video over RTSP, and what is done to it."""

    def __init__(self, name: str, videos: list[Path], rng: random.Random) -> None:
        self.name = name
        self._videos = videos
        self._video = 0
        self._rng = rng
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._start()
        self._next_fault = time.monotonic() + rng.uniform(20, 60)
        self._end_of_fault: float | None = None
        self.faults: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/parts"

    def turn(self) -> None:
        """Begin or end a fault, if it is time."""
        now = time.monotonic()
        if self._end_of_fault is not None:
            if now >= self._end_of_fault:
                self.mend()
        elif now >= self._next_fault:
            fault = self._rng.choice(FAULTS)
            self.faults[fault] += 1
            if fault == "frozen":
                self._process.send_signal(signal.SIGSTOP)
            else:
                self.kill()
                self._video ^= fault == "another size"
            self._end_of_fault = now + self._rng.uniform(1, 20)

    def mend(self) -> None:
        """Let the camera work again."""
        self._process.send_signal(signal.SIGCONT)
        if self._process.poll() is not None:
            self._start()
        self._end_of_fault = None
        self._next_fault = time.monotonic() + self._rng.uniform(20, 60)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        target = f"#rtp{{sdp=rtsp://127.0.0.1:{self.port}/parts}}"
        video = str(self._videos[self._video])
        self._process = subprocess.Popen(
            ["cvlc", "--quiet", "--loop", video, "--sout", target, "--sout-keep"],
            user="nobody" if os.geteuid() == 0 else None,  # VLC refuses to run as root
            env={**os.environ, "HOME": "/tmp"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@dataclass
class Heard:
    """What the stream has said so far."""

    verdicts: Counter[str] = field(default_factory=Counter)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_number: dict[str, int] = field(default_factory=dict)
    out_of_order: int = 0

    def listen(self, lines: "subprocess.Popen[str]") -> None:
        assert lines.stdout is not None
        for text in lines.stdout:
            line = json.loads(text)
            camera = line.get("camera", "")
            if "event" in line:
                self.events[camera, line["event"]] += 1
                continue
            self.verdicts[camera] += 1
            self.out_of_order += line["frame"] <= self.last_number.get(camera, -1)
            self.last_number[camera] = line["frame"]


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if shutil.which("cvlc") is None:
        raise SystemExit("no cvlc: apt-get install vlc-bin vlc-plugin-base")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # VLC's user reads the videos
        sys.exit(soak(arguments.model.resolve(), folder, arguments.minutes * 60, arguments.seed))


def soak(model: Path, folder: Path, seconds: float, seed: int) -> int:
    """Run the stream and the faults; return the exit code."""
    rng = random.Random(seed)
    videos = [
        write_video(folder / f"{width}x{height}.mp4", (width, height)) for width, height in SIZES
    ]
    cameras = [Camera(f"camera{number}", videos, rng) for number in range(4)]
    time.sleep(3)
    config = folder / "soak.toml"
    config.write_text(configuration(model, folder, cameras))
    stream = subprocess.Popen(
        [sys.executable, "-c", RUN, "stream", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("w"),
        text=True,
    )
    heard = Heard()
    listener = threading.Thread(target=heard.listen, args=(stream,))
    listener.start()
    samples: list[dict[str, float]] = []
    started = time.monotonic()
    next_sample = started
    try:
        while time.monotonic() - started < seconds and stream.poll() is None:
            for camera in cameras:
                camera.turn()
            if time.monotonic() >= next_sample:
                next_sample += SAMPLE_SECONDS
                samples.append(sample(stream.pid))
                verdicts = sum(heard.verdicts.values())
                progress = (
                    f"{time.monotonic() - started:6.0f} s  {samples[-1]}  {verdicts} verdicts"
                )
                print(progress, file=sys.stderr, flush=True)
            time.sleep(0.2)
        elapsed = time.monotonic() - started
        for camera in cameras:
            camera.mend()
        settle(heard, cameras, stream)
        stream.send_signal(signal.SIGTERM)
        code = stream.wait(60)
    finally:
        stream.kill()
        for camera in cameras:
            camera.kill()
    listener.join(10)
    log = (folder / "log").read_text()
    return report(elapsed, samples, heard, cameras, code, "Traceback" in log)


def settle(heard: Heard, cameras: list[Camera], stream: "subprocess.Popen[str]") -> None:
    """Give the cameras time to come back from their last fault."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and stream.poll() is None:
        if all(is_back(heard, camera.name) for camera in cameras):
            return
        time.sleep(0.5)


def is_back(heard: Heard, camera: str) -> bool:
    return heard.events[camera, "camera lost"] == heard.events[camera, "camera back"]


def report(
    elapsed: float,
    samples: list[dict[str, float]],
    heard: Heard,
    cameras: list[Camera],
    code: int,
    traceback: bool,
) -> int:
    """Print the tables; return the exit code."""
    faults = sum((camera.faults for camera in cameras), Counter[str]())
    lost = sum(count for (_, kind), count in heard.events.items() if kind == "camera lost")
    back = sum(count for (_, kind), count in heard.events.items() if kind == "camera back")
    print(f"{elapsed / 60:.0f} minutes, 4 cameras, faults: {dict(faults)}")
    print(f"{sum(heard.verdicts.values())} verdicts, {lost} x camera lost, {back} x camera back")
    print(f"frame numbers out of order: {heard.out_of_order}; exit code {code}\n")
    print("| of the stream's process | second quarter | third quarter | last quarter | highest |")
    print("|---|---|---|---|---|")
    quarter = max(1, len(samples) // 4)
    flat = True
    for key, allowed in GROWTH.items():
        values = [item[key] for item in samples]
        second, third, last = (
            statistics.mean(values[start : start + quarter] or values[-1:])
            for start in (quarter, 2 * quarter, 3 * quarter)
        )
        flat = flat and last - second <= allowed
        print(f"| {key} | {second:.1f} | {third:.1f} | {last:.1f} | {max(values):.1f} |")
    fine = flat and lost == back and code == 0 and not heard.out_of_order and not traceback
    print("\nflat, and every camera came back" if fine else "\nNOT flat, or a camera stayed away")
    return 0 if fine else 1


def sample(process: int) -> dict[str, float]:
    """Measure what may grow."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return {
        "memory MB": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "threads": len(os.listdir(f"/proc/{process}/task")),
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),
    }


def configuration(model: Path, folder: Path, cameras: list[Camera]) -> str:
    """Return the TOML: outputs that keep something, so that they could leak."""
    head = f"""
model = "{model}"
threads = 1
stall_timeout = 5
longest_delay = 5
[json]
path = "{folder / "verdicts.jsonl"}"
max_mb = 1
files = 3
[pictures]
folder = "{folder / "kept"}"
keep = "all"
max_count = 50
[alarm]
frames = 3
window = 5
[serve]
port = 0
"""
    tables = [
        f'[[camera]]\nname = "{camera.name}"\nsource = "{camera.address}"\n' for camera in cameras
    ]
    return head + "\n".join(tables)


def write_video(path: Path, size: tuple[int, int]) -> Path:
    """Write ten seconds of noise, so that no two frames are alike."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_SECOND, size)
    rng = np.random.default_rng(0)
    for _ in range(10 * FRAMES_PER_SECOND):
        small = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        writer.write(cv2.resize(small, size))
    writer.release()
    return path


if __name__ == "__main__":
    main()
