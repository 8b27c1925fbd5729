"""Time of the exported graphs against the bare backbone: one frame, interleaved, medians.

python benchmarks/export.py [--backbone NAME] [--threads 2] [--rounds 40]

Only sizes matter to the time, so that what the detectors would learn from 200 pictures is drawn.
"""

import time

import click
import numpy as np
import torch

from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore
from edge_ad_export.build import backbone_graph, build_graph
from edge_ad_export.recipe import Recipe
from edge_ad_runtime.model.session import create_session

SIZE = (256, 256)
PICTURES = 200
PATCHES = PICTURES * 1024
RECIPES = {"int8": Recipe("cpu", "int8"), "fp32": Recipe("cpu", "fp32")}


def padim(backbone: str) -> Detector:
    detector = PaDiM(backbone=backbone, weights="none", input_size=SIZE, device="cpu")
    positions, dims = detector.grid[0] * detector.grid[1], detector.dims
    detector.whitening = torch.randn(positions, dims, dims).tril() + 3 * torch.eye(dims)
    detector.mean_whitened = torch.randn(positions, dims)
    return detector


def patchcore(backbone: str, share: float = 0.1) -> Detector:
    detector = PatchCore(backbone=backbone, weights="none", input_size=SIZE, device="cpu")
    detector.memory = torch.randn(int(share * PATCHES), detector.n_channels)
    return detector


def small_patchcore(backbone: str) -> Detector:
    return patchcore(backbone, share=0.01)


def fusion(backbone: str) -> Detector:
    detector = Fusion(backbone=backbone, weights="none", input_size=SIZE, device="cpu")
    positions, dims = detector.grid[0] * detector.grid[1], detector.dims
    detector.whitening = torch.randn(positions, dims, dims).tril() + 3 * torch.eye(dims)
    detector.mean_whitened = torch.randn(positions, dims)
    detector.memory = torch.randn(PATCHES // 100, detector.n_channels - detector.n_finer)
    detector.weights = torch.ones(2)
    return detector


def spade(backbone: str) -> Detector:
    detector = SPADE(backbone=backbone, weights="none", input_size=SIZE, device="cpu")
    positions, deepest = detector.grid[0] * detector.grid[1], detector.backbone.layers[-1].channels
    detector.gallery = torch.randn(PICTURES, positions, detector.dims).half()
    detector.pooled = torch.randn(PICTURES, deepest)
    return detector


DETECTORS = {
    "PaDiM": padim,
    "PatchCore 10 %": patchcore,
    "PatchCore 1 %": small_patchcore,
    "SPADE": spade,
    "Fusion (1 % memory)": fusion,
}


@click.command()
@click.option("--backbone", "backbones", multiple=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=40, show_default=True)
def main(backbones: tuple[str, ...], threads: int, rounds: int) -> None:
    """Print a Markdown table."""
    click.echo("| backbone | detector | backbone ms | int8 ms | ratio | fp32 ms | ratio | MB |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for backbone in backbones or ("efficientnet_lite0", "resnet18", "wide_resnet50_2"):
        for name, create in DETECTORS.items():
            torch.manual_seed(0)
            times, size = measure(create(backbone), threads, rounds)
            bare = times["backbone"]
            cells = "".join(f" {times[key]:.1f} | {times[key] / bare:.2f} |" for key in RECIPES)
            click.echo(f"| {backbone} | {name} | {bare:.1f} |{cells} {size / 1e6:.0f} |")


def measure(detector: Detector, threads: int, rounds: int) -> tuple[dict[str, float], int]:
    """Return medians in milliseconds, and the bytes of the int8 file."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    image = rng.standard_normal((1, 3, *SIZE), np.float32)
    graphs = {name: build_graph(detector, recipe) for name, recipe in RECIPES.items()}
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
    return {name: float(np.median(values)) for name, values in times.items()}, len(data["int8"])


if __name__ == "__main__":
    main()
