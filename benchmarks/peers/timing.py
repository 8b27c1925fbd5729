"""The tables of time: the bare graph, and a frame in memory to its verdict.

Whoever is compared takes turns: other work on the machine then slows all alike, and the ratios
hold even where the milliseconds do not.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.peers.bench import Bench, Column, Contender, Row, Table
from benchmarks.peers.tools import DEVICE, EDGE_AD, PeerError, Turns
from edge_ad_runtime.model.bench import backbone_file
from edge_ad_runtime.model.session import session_options

THREADS = (1, 2)
FRAME_SIDE = 1024
WARM_UP = 5
PAUSE_S = 0.1
BACKBONE = "bare backbone"

Milliseconds = dict[str, list[float]]


def inference(bench: Bench) -> Table:
    """Milliseconds of each exported graph, and their ratio to the bare backbone."""
    times = {threads: _times(bench, "inference", threads, _run_graphs) for threads in THREADS}
    return _table(
        bench,
        times,
        "Inference",
        "One picture of the first class through the exported ONNX file in ONNX Runtime: all files "
        f"in one process, with the same session options, in turns, {bench.rounds} rounds, medians. "
        "Peers get a float image that is already resized; edge-ad's graph also casts and "
        "normalises the bytes. A graph of edge-ad is compared with its own bare backbone, which "
        "its export wrote beside it: SPADE's goes on to stride 32, and the preset `accurate` has "
        "EfficientNet-Lite2 at a larger size. Peers are compared with the first row, the "
        f"{BACKBONE} of the default, EfficientNet-Lite0 up to stride 16.",
        ratio=True,
    )


def frame(bench: Bench) -> Table:
    """Milliseconds from a 1024 x 1024 frame in memory to its verdict."""
    times = {threads: _times(bench, "frame", threads, _run_frames) for threads in THREADS}
    return _table(
        bench,
        times,
        f"A {FRAME_SIDE} x {FRAME_SIDE} frame in memory to its verdict",
        "Resize, normalisation, inference and verdict as each tool documents them, each in a "
        "process of its own, in turns of two calls after a pause, of which the second one counts, "
        f"{bench.rounds} rounds, medians. anomalib runs its OpenVINO file. AnomaVision cannot be "
        "told a number of threads: it takes all cores.",
        ratio=False,
    )


def latency_ms(bench: Bench, contender: Contender) -> float | None:
    """Return the milliseconds from a frame to its verdict with 2 threads."""
    found = _times(bench, "frame", THREADS[-1], _run_frames)
    return found.get(contender.name, {}).get("wall_ms")


def _times(
    bench: Bench,
    table: str,
    threads: int,
    run: Callable[[Bench, int], Mapping[str, Any]],
) -> dict[str, dict[str, float]]:
    key = {
        "table": table,
        "threads": threads,
        "rounds": bench.rounds,
        "class": bench.classes[0].name,
        "contenders": [one.name for one in bench.contenders],
    }
    return bench.measurements.get(key, lambda: run(bench, threads))


def _run_graphs(bench: Bench, threads: int) -> Mapping[str, Any]:
    calls: dict[str, Callable[[], object]] = {}
    for contender in bench.contenders:
        staged = bench.classes[0]
        fitted = bench.fitted(contender, staged)
        if not fitted.get("graph"):
            continue
        path = bench.folder(contender, staged) / fitted["graph"]
        calls[contender.name] = _session(path, threads)
        if contender.tool == EDGE_AD:
            calls[_backbone_of(contender.name)] = _session(backbone_file(path), threads)
            if contender.preset == "default":
                calls.setdefault(BACKBONE, calls[_backbone_of(contender.name)])
    wall: Milliseconds = {name: [] for name in calls}
    cpu: Milliseconds = {name: [] for name in calls}
    for round_ in range(WARM_UP + bench.rounds):
        for name, call in calls.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            call()
            if round_ >= WARM_UP:
                wall[name].append((time.perf_counter() - started) * 1000)
                cpu[name].append((time.process_time() - cpu_started) * 1000)
    return {name: {"wall_ms": median(wall[name]), "cpu_ms": median(cpu[name])} for name in calls}


def _backbone_of(name: str) -> str:
    return f"{BACKBONE} of {name}"


def _session(path: Path, threads: int) -> Callable[[], object]:
    """Open a file as the device package does; peers' files have their weights beside them."""
    options = session_options(onnxruntime, threads)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    rng = np.random.default_rng(0)
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    if wanted.type == "tensor(uint8)":
        value: Any = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        value = rng.random(shape, np.float32)
    return lambda: session.run(None, {wanted.name: value})


def _run_frames(bench: Bench, threads: int) -> Mapping[str, Any]:
    staged = bench.classes[0]
    failed: dict[str, dict[str, Any]] = {}
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        running: dict[str, Turns] = {}
        for contender in bench.contenders:
            fitted = bench.fitted(contender, staged)
            if not fitted.get("model"):
                continue
            request = {
                **bench.request(contender, staged),
                "do": "frame",
                "model": fitted["model"],
                "side": FRAME_SIDE,
                "threads": threads,
            }
            tool = DEVICE if contender.tool == EDGE_AD else contender.tool
            try:
                running[contender.name] = stack.enter_context(Turns(tool, request))
            except PeerError as error:
                failed[contender.name] = {"error": str(error)}
        for round_ in range(WARM_UP + bench.rounds):
            for name, process in list(running.items()):
                # Threads of the tool before may go on spinning on the cores of this one. After the
                # pause, the first call meets cores that sleep and caches that are cold.
                time.sleep(PAUSE_S)
                try:
                    process.turn()
                    answer = process.turn()
                except PeerError as error:
                    failed[name] = {"error": str(error)}
                    del running[name]
                    continue
                if round_ >= WARM_UP:
                    found.setdefault(name, []).append(answer)
    medians = {
        name: {kind: median(one[kind] for one in turns) for kind in ("wall_ms", "cpu_ms")}
        for name, turns in found.items()
    }
    return {**medians, **failed}


def _table(
    bench: Bench,
    times: dict[int, dict[str, dict[str, float]]],
    title: str,
    about: str,
    *,
    ratio: bool,
) -> Table:
    columns: list[Column] = []
    for threads in THREADS:
        unit = f"{threads} thread{'s' if threads > 1 else ''}"
        columns += [Column(f"wall, ms, {unit}", -1), Column(f"CPU, ms, {unit}", -1)]
        if ratio:
            columns.append(Column(f"ratio, {unit}", -1, "{:.2f}"))
            columns.append(Column(f"ratio of CPU time, {unit}", -1, "{:.2f}"))
    table = Table(title, about, columns)
    names = [BACKBONE] if ratio else []
    for name in names + [one.name for one in bench.contenders]:
        figures: list[float | None] = []
        problems: dict[str, None] = {}
        for threads in THREADS:
            one = times[threads].get(name, {})
            wall, cpu = one.get("wall_ms"), one.get("cpu_ms")
            figures += [wall, cpu]
            if ratio:
                common = times[threads].get(BACKBONE, {"wall_ms": math.nan, "cpu_ms": math.nan})
                bare = times[threads].get(_backbone_of(name), common)
                figures += [
                    wall / bare["wall_ms"] if wall else None,
                    cpu / bare["cpu_ms"] if cpu else None,
                ]
            if "error" in one:
                problems[str(one["error"])] = None
        if any(figure is not None for figure in figures) or problems:
            table.rows.append(Row(name, figures, "; ".join(problems)))
    return table
