"""Time of the exported graphs against the bare backbone: one frame, interleaved, medians.

python benchmarks/export.py [--backbone NAME] [--size 256x256] [--threads 2] [--rounds 40]

Only sizes matter to the time, so that what the detectors would learn from 200 pictures is drawn.
Each detector is compared with its own backbone: SPADE's goes on to stride 32.
"""

import time
from collections.abc import Callable

import click
import numpy as np
import torch

from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore
from edge_ad_export.build import backbone_graph, build_graph
from edge_ad_export.recipe import Recipe
from edge_ad_runtime.model.session import create_session

PICTURES = 200
PRECISIONS = ("int8", "fp32")

Size = tuple[int, int]


def padim(backbone: str, size: Size) -> Detector:
    detector = PaDiM(backbone=backbone, weights="none", input_size=size, device="cpu")
    draw_gaussians(detector)
    return detector


def patchcore(backbone: str, size: Size, share: float = 0.1) -> Detector:
    detector = PatchCore(backbone=backbone, weights="none", input_size=size, device="cpu")
    detector.memory = torch.randn(memory_size(detector, share), detector.n_channels)
    return detector


def small_patchcore(backbone: str, size: Size) -> Detector:
    return patchcore(backbone, size, share=0.01)


def fusion(backbone: str, size: Size) -> Detector:
    detector = Fusion(backbone=backbone, weights="none", input_size=size, device="cpu")
    draw_gaussians(detector)
    channels = detector.n_channels - detector.n_finer
    detector.memory = torch.randn(memory_size(detector, 0.01), channels)
    detector.weights = torch.ones(2)
    return detector


def spade(backbone: str, size: Size) -> Detector:
    detector = SPADE(backbone=backbone, weights="none", input_size=size, device="cpu")
    deepest = detector.backbone.layers[-1].channels
    detector.gallery = torch.randn(PICTURES, positions(detector), detector.dims).half()
    detector.pooled = torch.randn(PICTURES, deepest)
    return detector


def positions(detector: Detector) -> int:
    return detector.grid[0] * detector.grid[1]


def memory_size(detector: Detector, share: float) -> int:
    return int(share * PICTURES * positions(detector))


def draw_gaussians(detector: PaDiM | Fusion) -> None:
    count, dims = positions(detector), detector.dims
    detector.whitening = torch.randn(count, dims, dims).tril() + 3 * torch.eye(dims)
    detector.mean_whitened = torch.randn(count, dims)


DETECTORS: dict[str, Callable[[str, Size], Detector]] = {
    "PaDiM": padim,
    "PatchCore 10 %": patchcore,
    "PatchCore 1 %": small_patchcore,
    "SPADE": spade,
    "Fusion (1 % memory)": fusion,
}


@click.command()
@click.option("--backbone", "backbones", multiple=True)
@click.option("--size", default="256x256", show_default=True, help="Height x width of the input.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=40, show_default=True)
def main(
    backbones: tuple[str, ...], size: str, precisions: tuple[str, ...], threads: int, rounds: int
) -> None:
    """Print a Markdown table."""
    height, width = map(int, size.split("x"))
    columns = [f" {name} ms | ratio |" for name in precisions]
    click.echo(f"| backbone | detector | backbone ms |{''.join(columns)} MB |")
    click.echo("|" + "---|" * (4 + 2 * len(precisions)))
    for backbone in backbones or ("efficientnet_lite0", "resnet18", "wide_resnet50_2"):
        for name, create in DETECTORS.items():
            torch.manual_seed(0)
            times, n_bytes = measure(create(backbone, (height, width)), precisions, threads, rounds)
            bare = times["backbone"]
            cells = "".join(f" {times[key]:.1f} | {times[key] / bare:.2f} |" for key in precisions)
            click.echo(f"| {backbone} | {name} | {bare:.1f} |{cells} {n_bytes / 1e6:.0f} |")


def measure(
    detector: Detector, precisions: tuple[str, ...], threads: int, rounds: int
) -> tuple[dict[str, float], int]:
    """Return medians in milliseconds, and the bytes of the first file."""
    rng = np.random.default_rng(0)
    size = detector.preprocessing.input_size
    frame = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
    image = rng.standard_normal((1, 3, *size), np.float32)
    graphs = {name: build_graph(detector, Recipe("cpu", name)) for name in precisions}
    inputs = {"backbone": {"image": image}} | {name: {"frame": frame} for name in graphs}
    graphs["backbone"] = backbone_graph(detector)
    data = {name: graph.SerializeToString() for name, graph in graphs.items()}
    sessions = {name: create_session(content, "cpu", threads) for name, content in data.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for round_ in range(rounds + 3):
        for name, each in sessions.items():
            started = time.perf_counter()
            each.run(None, inputs[name])
            if round_ >= 3:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: float(np.median(values)) for name, values in times.items()}, len(
        data[precisions[0]]
    )


if __name__ == "__main__":
    main()
