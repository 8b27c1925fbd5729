"""Training, export and inference on an NVIDIA GPU, beside the CPU of the same machine.

    python benchmarks/gpu.py --data-root ../shared/data --class bottle [--preset accurate]

Each detector is fitted on the good pictures of a class, on the CPU and on CUDA, and scores the test
split. The detector of the CPU is then exported, and its files score the same pictures.
"""

import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from edge_ad.config import CONFIGS, PRESETS
from edge_ad.data import Category, load_category
from edge_ad.models import DETECTORS, Detector, create
from edge_ad_export import ExportOptions
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.model.bench import benchmark

PRECISIONS = ("fp32", "fp16")
PROOF_PICTURES = 20
WARM_UP_PICTURES = 8


@dataclass(frozen=True)
class Fit:
    """A fitted detector, what it took, and the scores (n,) of the test pictures."""

    detector: Detector
    fit_s: float
    score_ms: float
    gpu_memory_mb: float
    scores: NDArray[np.float64]

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """The verdicts."""
        return self.scores >= self.detector.threshold


@click.command(help=__doc__)
@click.option("--data-root", type=click.Path(path_type=Path), required=True)
@click.option("--class", "category_name", default="bottle", show_default=True)
@click.option("--preset", type=click.Choice(PRESETS), default="fast", show_default=True)
@click.option("--method", "methods", multiple=True, default=list(DETECTORS))
@click.option("--frames", default=200, show_default=True, help="Timed for each file.")
def main(
    data_root: Path, category_name: str, preset: str, methods: tuple[str, ...], frames: int
) -> None:
    category = load_category(category_name, data_root)
    print(
        f"{torch.cuda.get_device_name()}, {platform.machine()}, {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {category_name}")
    print("\n| detector | fit, CPU s | CUDA s | ratio | GPU memory, MB ", end="")
    print("| score, CPU ms | CUDA ms | limit differs by | scores | verdicts |")
    print("|---|" + "---:|" * 9)
    fits = {
        method: [fit(method, preset, device, category) for device in ("cpu", "cuda")]
        for method in methods
    }
    for method, (on_cpu, on_gpu) in fits.items():
        limits = on_gpu.detector.threshold / on_cpu.detector.threshold - 1
        print(
            f"| {method} | {on_cpu.fit_s:.1f} | {on_gpu.fit_s:.1f} "
            f"| {on_cpu.fit_s / on_gpu.fit_s:.1f} | {on_gpu.gpu_memory_mb:.0f} "
            f"| {on_cpu.score_ms:.1f} | {on_gpu.score_ms:.1f} | {limits:+.1e} "
            f"| {largest_difference(on_gpu.scores, on_cpu.scores):.1e} "
            f"| {changed(on_gpu.anomalous, on_cpu.anomalous)} |",
            flush=True,
        )
    print("\n| detector | file | p50 ms | backbone ms | ratio | frames/s in batches of ", end="")
    print("| MB | scores differ from PyTorch by | verdicts |\n|---|---|" + "---:|" * 7)
    with tempfile.TemporaryDirectory() as folder:
        for method, (on_cpu, _) in fits.items():
            for precision in PRECISIONS:
                path = Path(folder) / f"{method}-{precision}.onnx"
                try:
                    cells = measured(on_cpu, path, precision, category, frames)
                except EdgeAdError as error:
                    cells = f"{type(error).__name__}: {error} |"
                print(f"| {method} | {precision} | {cells}", flush=True)


def fit(method: str, preset: str, device: str, category: Category) -> Fit:
    """Fit on the good pictures and score the test split."""
    config = CONFIGS[method](**CONFIGS[method].preset(preset), device=device)
    # The start of CUDA and the choice of convolutions are not part of a fit, nor of a score.
    create(config).fit(category.train[:WARM_UP_PICTURES]).predict(category.test)
    torch.cuda.reset_peak_memory_stats()
    detector = create(config)
    started = time.perf_counter()
    detector.fit(category.train)
    fit_s = time.perf_counter() - started
    started = time.perf_counter()
    scores = np.array([found.score for found in detector.predict(category.test)])
    score_ms = (time.perf_counter() - started) * 1000 / len(scores)
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
    return Fit(detector, fit_s, score_ms, memory, scores)


def measured(on_cpu: Fit, path: Path, precision: str, category: Category, frames: int) -> str:
    """Export, score the test split with the file and time it: the last cells of a row."""
    options = ExportOptions(target="cuda", precision=precision, with_backbone=True)
    compared = category.test[:: len(category.test) // PROOF_PICTURES + 1]
    exported = on_cpu.detector.export(path, pictures=compared, options=options)
    timed = benchmark(path, device="cuda", frames=frames)
    scorer = Scorer(path, device="cuda")
    results = scorer.score_batch([category.test.load(sample) for sample in category.test])
    scores = np.array([result.score for result in results])
    anomalous = np.array([result.anomalous for result in results])
    return (
        f"{timed.latency_ms['p50']:.2f} | {timed.backbone_latency_ms:.2f} "
        f"| {timed.ratio_to_backbone:.2f} | {timed.best_frames_per_second:.0f} of "
        f"{timed.best_batch} | {exported.size_bytes / 1e6:.0f} "
        f"| {largest_difference(scores, on_cpu.scores):.1e} "
        f"| {changed(anomalous, on_cpu.anomalous)} |"
    )


def largest_difference(scores: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the largest relative difference."""
    return float(np.abs(scores / expected - 1).max())


def changed(anomalous: NDArray[np.bool_], expected: NDArray[np.bool_]) -> str:
    """Say how many verdicts differ."""
    return f"{int((anomalous != expected).sum())} of {len(expected)}"


if __name__ == "__main__":
    main()
