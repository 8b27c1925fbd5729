"""The tables of the device: its footprint, a long video, and a camera that goes away."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.bench import Bench, Column, Contender, Row, Table
from benchmarks.peers.camera import (
    FRAME_INTERVAL_S,
    VIDEO_FRAMES,
    VIDEO_SIZE,
    MjpegCamera,
    write_video,
)
from benchmarks.peers.tools import (
    ANOMALIB,
    ANOMAVISION,
    DEVICE,
    EDGE_AD,
    PeerError,
    Tool,
    ask,
    installed_mb,
    last_words,
)

STARTS = 5
START_TIMEOUT_S = 300.0
VIDEO_TIMEOUT_S = 600.0
SENDS_S, AWAY_S, BACK_S = 20.0, 10.0, 30.0

NO_STREAM = "the package has no command or class that scores a video or a camera"


def footprint(bench: Bench) -> Table:
    """Installed size, import time, memory and cold start of what a device needs."""
    table = Table(
        "Footprint",
        "What a device has to install (the wheels that pip chooses on this machine; edge-ad: "
        "`edge-ad[device]`), and a new process that imports it, loads the PaDiM file of the first "
        f"class and scores one picture: medians of {STARTS} processes, in turns. A cold start is "
        "the time from the start of the process to the verdict, with the files in the page cache.",
        [
            Column("installed, MB", -1, "{:.0f}"),
            Column("import, s", -1, "{:.2f}"),
            Column("memory, MiB", -1, "{:.0f}"),
            Column("cold start, s", -1, "{:.2f}"),
        ],
    )
    for contender in _padims(bench):
        fitted = bench.fitted(contender, bench.classes[0])
        tool = _on_device(contender)
        if not fitted.get("model"):
            table.rows.append(Row(tool.name, [installed_mb(tool), None, None, None]))
            continue
        found = [_start(bench, contender, fitted["model"], round_) for round_ in range(STARTS)]
        errors = [str(one["error"]) for one in found if "error" in one]
        if errors:
            table.rows.append(Row(tool.name, [installed_mb(tool), None, None, None], errors[0]))
            continue
        figures = [median(one[name] for one in found) for name in ("import_s", "rss_mib", "cold_s")]
        table.rows.append(Row(tool.name, [installed_mb(tool), *figures]))
    return table


def _start(bench: Bench, contender: Contender, model: str, round_: int) -> dict[str, Any]:
    def measure() -> Mapping[str, Any]:
        request = bench.request(contender, bench.classes[0])
        started = time.perf_counter()
        found = ask(
            _on_device(contender), {**request, "do": "start", "model": model}, START_TIMEOUT_S
        )
        return {**found, "cold_s": time.perf_counter() - started}

    return bench.measurements.get(
        {"table": "footprint", "contender": contender.name, "round": round_}, measure
    )


def video(bench: Bench) -> Table:
    """How many of 1,000 frames are scored, how fast, and what happens when a camera goes away."""
    width, height = VIDEO_SIZE
    table = Table(
        "Video and camera",
        f"A file of {VIDEO_FRAMES:,} frames of {width} x {height} pixels (MPEG-4), with PaDiM, "
        "through the tool's own stream; the time includes the start of the process. Then an HTTP "
        f"camera (MJPEG, {1 / FRAME_INTERVAL_S:.0f} frames a second) that sends "
        f"for {SENDS_S:.0f} s after the first connection, is unreachable for {AWAY_S:.0f} s, and "
        f"is there again for {BACK_S:.0f} s.",
        [
            Column("frames scored", 1, "{:.0f}"),
            Column("frames a second", 1),
            Column("frames scored after the camera's return", 1, "{:.0f}"),
        ],
    )
    for contender in _padims(bench):
        tool = contender.tool
        if tool == ANOMALIB:
            table.rows.append(Row(tool.name, [None, None, None], NO_STREAM))
            continue
        fitted = bench.fitted(contender, bench.classes[0])
        file = _measure(bench, contender, fitted, "file")
        camera = _measure(bench, contender, fitted, "camera")
        frames, seconds = file.get("frames"), file.get("seconds")
        rate = frames / seconds if frames and seconds else None
        notes = [str(one["error"]) for one in (file, camera) if "error" in one]
        notes += [camera["end"]] if "end" in camera else []
        table.rows.append(Row(tool.name, [frames, rate, camera.get("after")], "; ".join(notes)))
    return table


def _measure(
    bench: Bench, contender: Contender, fitted: Mapping[str, Any], what: str
) -> dict[str, Any]:
    def measure() -> Mapping[str, Any]:
        request = {
            **bench.request(contender, bench.classes[0]),
            "do": "video",
            "model": fitted["model"],
        }
        if what == "file":
            path = bench.work / "parts.mp4"
            if not path.exists():
                write_video(path)
            return _score_file(_on_device(contender), request, path)
        return _lose_camera(_on_device(contender), request)

    key = {"table": "video", "contender": contender.name, "what": what}
    if not fitted.get("model"):
        return {"error": "there is no exported file"}
    return bench.measurements.get(key, measure)


def _score_file(tool: Tool, request: dict[str, Any], path: Path) -> Mapping[str, Any]:
    started = time.perf_counter()
    with _streaming(tool, request, str(path)) as (process, lines):
        try:
            process.wait(VIDEO_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PeerError(f"not ready after {VIDEO_TIMEOUT_S:.0f} s") from None
        seconds = time.perf_counter() - started
    if process.returncode != 0:
        raise PeerError(f"exit code {process.returncode}: {last_words(''.join(lines))}")
    return {"frames": _count(lines), "seconds": seconds}


def _lose_camera(tool: Tool, request: dict[str, Any]) -> Mapping[str, Any]:
    """Let a camera go away and come back; count the frames before and after."""
    camera = MjpegCamera()
    with camera, _streaming(tool, request, camera.url) as (process, lines):
        deadline = time.monotonic() + START_TIMEOUT_S
        while not camera.connected.wait(0.2):
            if process.poll() is not None:
                raise PeerError(f"exit code {process.returncode}: {last_words(''.join(lines))}")
            if time.monotonic() > deadline:
                raise PeerError(f"it did not connect to the camera within {START_TIMEOUT_S:.0f} s")
        time.sleep(SENDS_S)
        camera.go_away()
        time.sleep(AWAY_S)
        ended = process.poll()
        before = _count(lines)
        camera.come_back()
        time.sleep(BACK_S)
        after = _count(lines) - before
        if ended is not None:
            end = f"the process ended with exit code {ended} when the camera went away"
        elif after:
            end = "it connected again by itself"
        elif process.poll() is None:
            words = [line for line in lines if re.search("camera|stream|source|lost", line, re.I)]
            silence = "" if _after_loss(words) else " and says nothing"
            end = f"the process goes on, never connects again{silence}"
        else:
            end = f"the process ended with exit code {process.poll()}"
    return {"before": before, "after": after, "end": end}


def _after_loss(words: list[str]) -> bool:
    return any(re.search("lost|disconnect|reconnect|fail|unreach", line, re.I) for line in words)


@contextmanager
def _streaming(
    tool: Tool, request: dict[str, Any], source: str
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the tool's stream; its lines arrive in the list while it runs."""
    options = ["--camera", source, "--stall-timeout", "3"]
    process = subprocess.Popen(
        tool.command({**request, "source": source, "options": options}),
        env=tool.environment(),
        cwd=request["folder"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield process, lines
        process.send_signal(signal.SIGTERM)
        reader.join(20)
    finally:
        process.kill()
        process.wait()
        reader.join(20)


def _count(lines: list[str]) -> int:
    """Count the verdicts, each of which is a line; events of edge-ad may name a score, too."""
    return sum('"score"' in line and '"event"' not in line for line in list(lines))


def _padims(bench: Bench) -> list[Contender]:
    """Return one contender of each tool: PaDiM, the quickest of both peers."""
    chosen: dict[str, Contender] = {}
    for contender in bench.contenders:
        if contender.method == "padim":
            chosen.setdefault(contender.tool.name, contender)
    return [chosen[tool.name] for tool in (EDGE_AD, ANOMALIB, ANOMAVISION) if tool.name in chosen]


def _on_device(contender: Contender) -> Tool:
    return DEVICE if contender.tool == EDGE_AD else contender.tool
