"""`edge-ad bench`: how fast a model file runs on this machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import device_option, require, threads_option

if TYPE_CHECKING:
    from edge_ad_runtime.model.bench import Benchmark


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@device_option
@threads_option
@click.option(
    "--frames",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many frames to time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(model: Path, device: str, threads: int | None, frames: int, as_json: bool) -> None:
    """Time the model file MODEL on this machine.

    The frames have 512 x 512 pixels, and are timed one at a time and in the best batch size. If the
    bare backbone lies beside it (`edge-ad export --with-backbone`), the ratio of the two times is
    printed as well.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="timing")
    from edge_ad_runtime.model.bench import benchmark

    result = benchmark(model, device=device, threads=threads, frames=frames)
    # Whoever compares figures must know: one frame at a time, no threads that spin between them.
    document = asdict(result) | {"batch": 1, "spinning": False}
    click.echo(json.dumps(document) if as_json else _text(result))


def _text(result: "Benchmark") -> str:
    latency, parts = result.latency_ms, result.parts_ms
    ratio = "unknown: export with --with-backbone"
    if result.ratio_to_backbone is not None:
        ratio = (
            f"{result.backbone_latency_ms:.1f} ms, the model takes "
            f"{result.ratio_to_backbone:.2f} times as long"
        )
    memory = "unknown" if result.memory_mb is None else f"{result.memory_mb:.0f} MB"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        f"device       {result.device}, {result.provider}, "
        f"{result.threads or 'all'} threads, which sleep while idle\n"
        f"one frame    {latency['p50']:.1f} ms (p95 {latency['p95']:.1f}, "
        f"p99 {latency['p99']:.1f}), {result.frames_per_second:.1f} frames/s\n"
        f"             resize {parts['resize']:.2f}, inference {parts['inference']:.2f}, "
        f"post {parts['post']:.2f} ms\n"
        f"best batch   {result.best_batch}, {result.best_frames_per_second:.1f} frames/s\n"
        f"backbone     {ratio}\n"
        f"memory       {memory}\n"
        f"versions     {versions}"
    )
