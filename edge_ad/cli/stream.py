"""`edge-ad stream`: a camera in, one JSON line for each frame out."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import require
from edge_ad.cli.scoring_options import device_option, threads_option, threshold_option
from edge_ad.runs import DEFAULT_RESULTS, newest_model
from edge_ad_runtime.errors import EdgeAdError

if TYPE_CHECKING:
    from edge_ad_runtime import Scorer, StreamSummary


@click.command()
@click.option(
    "--camera",
    required=True,
    metavar="SRC",
    help="Index, device path, video file, picture, folder, glob of pictures, or URL.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    envvar="EDGE_AD_MODEL",
    show_envvar=True,
    help="Default: the newest exported file below ./results.",
)
@device_option
@threads_option
@threshold_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="Keep overlays of anomalous frames here."
)
@click.option("--max-frames", type=click.IntRange(min=1), help="End after so many frames.")
def stream(
    camera: str,
    model: Path | None,
    device: str,
    threads: int | None,
    threshold: float | None,
    output: Path | None,
    max_frames: int | None,
) -> None:
    """Score a camera: the verdicts on stdout, everything else on stderr.

    Files and folders: every frame once. Cameras: the newest frame each time, skipped ones are
    counted. Exit code: 0 at the end or after SIGTERM, 1 when frames or the camera failed, 130
    after Ctrl-C.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="streaming")
    from edge_ad_runtime import JsonLines, OverlayFolder, Scorer, open_source, run_stream
    from edge_ad_runtime.outputs import Output

    path = model or _newest_model()
    scorer = Scorer(path, device=device, threads=threads, threshold=threshold)
    kept: list[Output] = [OverlayFolder(output, scorer.info)] if output else []
    source = open_source(camera)
    _announce(path, scorer)
    with _stop_on_signals() as (stop, received):
        lines = JsonLines(sys.stdout, camera=source.name)
        summary = run_stream(source, scorer, [lines, *kept], max_frames=max_frames, stop=stop)
    click.echo(str(summary), err=True)
    _end(summary, received)


def _newest_model() -> Path:
    newest = newest_model(DEFAULT_RESULTS)
    if newest is None:
        raise EdgeAdError(
            "found no model file: give one with --model, set $EDGE_AD_MODEL, or write one below "
            "./results with `edge-ad export`"
        )
    return newest


def _announce(path: Path, scorer: "Scorer") -> None:
    info = scorer.info
    click.echo(
        f"{path}: {info.method} on {info.category}, exported {info.created_at}, "
        f"threshold {scorer.threshold:.4g} ({info.threshold_rule}), {scorer.provider}",
        err=True,
    )


@contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Turn SIGINT and SIGTERM into an event; a second one has its usual effect."""
    stop = threading.Event()
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: object) -> None:
        received.append(number)
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop, received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(summary: "StreamSummary", received: list[int]) -> None:
    """Leave with the exit code that says how it ended.

    Raises:
        CameraError: the camera was lost.
        EdgeAdError: frames failed, or verdicts were lost.
    """
    if summary.output_closed:
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if signal.SIGINT in received:
        raise SystemExit(130)
    if signal.SIGTERM in received:
        return
    if summary.camera_error is not None:
        raise summary.camera_error
    if summary.failed or summary.lost_outputs:
        raise EdgeAdError(
            f"{summary.failed} frames failed and {summary.lost_outputs} verdicts were lost by an "
            "output: see the messages above"
        )
