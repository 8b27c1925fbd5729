"""How fast a model file runs here, and how much of that is the bare backbone. No PyTorch needed."""

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.model.accelerator import CPU
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.scorer import Scorer, read_model
from edge_ad_runtime.model.session import create_session

FRAME_SIZE = (512, 512)
BATCHES = (1, 2, 4, 8, 16)
WARM_UP = 3
BATCH_ROUNDS = 5

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Times in milliseconds, medians unless said otherwise.

    Attributes:
        device: what was asked for.
        provider: the execution provider that ran it.
        threads: CPU threads; None: ONNX Runtime's choice, one for each physical core.
        latency_ms: p50, p95 and p99 of one frame: resize, inference and results.
        parts_ms: of one frame: `resize`, `inference`, and `post` for the rest.
        frames_per_second: one frame at a time.
        best_batch: the batch size with the most frames per second.
        best_frames_per_second: how many frames that is.
        backbone_latency_ms: the bare backbone on one image; None without its file.
        ratio_to_backbone: inference of one frame divided by that; both timed in turns.
        memory_mb: largest resident memory of this process so far; None where the operating
            system does not tell.
        versions: of Python and the packages that took part.
    """

    device: str
    provider: str
    threads: int | None
    latency_ms: Mapping[str, float]
    parts_ms: Mapping[str, float]
    frames_per_second: float
    best_batch: int
    best_frames_per_second: float
    backbone_latency_ms: float | None
    ratio_to_backbone: float | None
    memory_mb: float | None
    versions: Mapping[str, str]


def backbone_file(model: Path) -> Path:
    """Return where the bare backbone of a model file lies: `NAME-backbone.onnx` beside it."""
    return model.with_name(f"{model.stem}-backbone.onnx")


def benchmark(
    model: Path, *, device: str = "auto", threads: int | None = None, frames: int = 50
) -> Benchmark:
    """Time a model file on frames of noise, and the bare backbone where its file lies beside it.

    Args:
        model: written by `edge-ad export`, `--with-backbone` for the comparison.
        device: as in `Scorer`.
        threads: as in `Scorer`.
        frames: how many frames are timed, one at a time.

    Raises:
        DataError: fewer than one frame.
        ModelFileError: the file cannot be used.
        DeviceError: the device cannot run it.
    """
    if frames < 1:
        raise DataError(f"expected at least 1 frame to time, got {frames}")
    scorer = Scorer(model, device=device, threads=threads)
    # A session of its own: the scorer's own time is what is left of the whole.
    runs_on = "cpu" if scorer.provider == CPU else device
    session = create_session(model.read_bytes(), runs_on, threads)
    frame = _noise((*FRAME_SIZE, 3))
    image = scorer.info.preprocessing.apply(frame)[np.newaxis]
    steps: dict[str, Step] = {
        "whole": lambda: scorer.score(frame),
        "resize": lambda: scorer.info.preprocessing.apply(frame),
        "inference": lambda: session.run(None, {"frame": image}),
    }
    if backbone_file(model).is_file():
        steps["backbone"] = _backbone(backbone_file(model), runs_on, threads)
    times = _in_turns(steps, frames)
    best_batch, best_rate = _best_batch(scorer, frame, session.get_inputs()[0].shape[0])
    return _result(times, best_batch, best_rate, (scorer.provider, device, threads))


def _backbone(path: Path, device: str, threads: int | None) -> Step:
    """Return a run of the bare backbone on one image.

    Raises:
        ModelFileError: it cannot be read, or is something else.
    """
    session = create_session(read_model(path), device, threads)
    inputs = session.get_inputs()
    if [item.name for item in inputs] != ["image"]:
        raise ModelFileError(
            f"expected the bare backbone in {path}, with one input 'image': "
            "export the run again with --with-backbone"
        )
    shape = [1, *inputs[0].shape[1:]]
    image = np.random.default_rng(0).standard_normal(shape, np.float32)
    return lambda: session.run(None, {"image": image})


def _in_turns(steps: Mapping[str, Step], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Time each step once a round, in milliseconds, so that a busy moment meets all of them."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = perf_counter()
            step()
            times[name].append((perf_counter() - started) * 1000)
    return {name: np.array(values) for name, values in times.items()}


def _best_batch(scorer: Scorer, frame: Frame, batch_size: object) -> tuple[int, float]:
    """Return the batch with the most frames per second, and that rate."""
    batches = (1,) if isinstance(batch_size, int) else BATCHES
    rates = {batch: _rate(scorer, [frame] * batch) for batch in batches}
    best = max(rates, key=lambda batch: rates[batch])
    return best, rates[best]


def _rate(scorer: Scorer, frames: list[Frame]) -> float:
    """Return frames per second of one batch."""
    times = _in_turns({"batch": lambda: scorer.score_batch(frames)}, BATCH_ROUNDS)
    return 1000 * len(frames) / float(np.median(times["batch"]))


def _result(
    times: Mapping[str, NDArray[np.float64]],
    best_batch: int,
    best_rate: float,
    place: tuple[str, str, int | None],
) -> Benchmark:
    provider, device, threads = place
    whole, inference = times["whole"], float(np.median(times["inference"]))
    resize = float(np.median(times["resize"]))
    p50, p95, p99 = (float(value) for value in np.percentile(whole, (50, 95, 99)))
    backbone = float(np.median(times["backbone"])) if "backbone" in times else None
    return Benchmark(
        device=device,
        provider=provider,
        threads=threads,
        latency_ms={"p50": p50, "p95": p95, "p99": p99},
        parts_ms={
            "resize": resize,
            "inference": inference,
            "post": max(0.0, p50 - resize - inference),
        },
        frames_per_second=1000 / p50,
        best_batch=best_batch,
        best_frames_per_second=best_rate,
        backbone_latency_ms=backbone,
        ratio_to_backbone=inference / backbone if backbone else None,
        memory_mb=_memory_mb(),
        versions=_versions(),
    )


def _memory_mb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _versions() -> dict[str, str]:
    import onnxruntime

    runtime: Any = onnxruntime
    return {
        "python": platform.python_version(),
        "onnxruntime": runtime.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


def _noise(shape: tuple[int, ...]) -> Frame:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
