"""`edge-ad stream`: cameras in, one JSON line for each verdict and event out."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.options import require
from edge_ad.cli.stream_options import merged, stream_options, to_document
from edge_ad.runs import DEFAULT_RESULTS, newest_model
from edge_ad_runtime.errors import DataError, EdgeAdError

if TYPE_CHECKING:
    from edge_ad_runtime.stream.config import StreamConfig
    from edge_ad_runtime.stream.stream import Line
    from edge_ad_runtime.stream.summary import StreamSummary


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file; options win over it.")
@click.option("--check", is_flag=True, help="Only say what is wrong with the configuration.")
@stream_options
def stream(config: Path | None, check: bool, **options: Any) -> None:
    """Score cameras: verdicts and events on stdout, everything else on stderr.

    Files and folders: every frame once. Cameras: the newest frame each time, skipped ones are
    counted; a lost camera is an event and tried again for as long as it takes. SIGHUP: thresholds
    and model files are read again. Exit code: 0 at the end or after SIGTERM, 1 when frames or all
    cameras failed, 2 for wrong usage, 130 after Ctrl-C.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="streaming")
    if config is None and not options["cameras"]:
        raise click.UsageError("Missing option '--camera' or '--config'.")
    parsed = _parse(config, options)
    if check:
        click.echo(f"{len(parsed.cameras)} cameras, no mistakes")
        return
    line = _prepare(parsed)
    with _signals() as received, _served(line):
        _reload_on_hangup(line, received, lambda: _parse(config, options))
        summary = line.run(received.stop)
    click.echo(str(summary), err=True)
    _end(summary, received.numbers)


def _parse(config: Path | None, options: Mapping[str, Any]) -> "StreamConfig":
    """Read the file and the options as one configuration.

    Raises:
        DataError: with every mistake.
    """
    from edge_ad_runtime.stream.config import parse_config, read_document

    document = read_document(config) if config is not None else {}
    document = merged(document, to_document(options))
    cameras = document.get("camera", [])
    if "model" not in document and not _all_have_models(cameras):
        document["model"] = str(_newest_model())
    return parse_config(document)


def _all_have_models(cameras: object) -> bool:
    return isinstance(cameras, list) and all(
        isinstance(camera, Mapping) and "model" in camera for camera in cameras
    )


def _newest_model() -> Path:
    newest = newest_model(DEFAULT_RESULTS)
    if newest is None:
        raise DataError(
            "found no model file: give one with --model, set $EDGE_AD_MODEL, or write one below "
            "./results with `edge-ad export`"
        )
    return newest


def _prepare(config: "StreamConfig") -> "Line":
    """Load, open and announce everything.

    Raises:
        EdgeAdError: a part of it cannot be used.
    """
    from edge_ad_runtime.stream.build import add_outputs
    from edge_ad_runtime.stream.stream import Line, scorer_of

    line = Line(config)
    add_outputs(line)
    for station in line.stations:
        scorer = scorer_of(station.loop)
        info = scorer.info
        click.echo(
            f"{station.path}: {info.method} on {info.category}, exported {info.created_at}, "
            f"threshold {scorer.threshold:.4g} ({info.threshold_rule}), {scorer.provider}",
            err=True,
        )
    return line


@contextmanager
def _served(line: "Line") -> Iterator[None]:
    """Serve the live page meanwhile, if it is wanted."""
    config = line.config.outputs.serve
    if config is None:
        yield
        return
    from edge_ad_runtime.page.server import PageServer

    server = PageServer(line, config)
    click.echo("live page on http://{}:{}/".format(*server.address), err=True)
    try:
        yield
    finally:
        server.close()


class _Received:
    """Signals that came: `stop` and `reload` are set by them, `numbers` lists the first ones."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self.numbers: list[int] = []


@contextmanager
def _signals() -> Iterator[_Received]:
    """Turn signals into events; a second SIGINT or SIGTERM has its usual effect."""
    received = _Received()
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in names}

    def end(number: int, frame: object) -> None:
        received.numbers.append(number)
        received.stop.set()
        signal.signal(number, before[signal.Signals(number)])

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda number, frame: received.reload.set())
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reload_on_hangup(
    line: "Line", received: _Received, parse: Callable[[], "StreamConfig"]
) -> None:
    """Start a thread that reads the configuration again at each SIGHUP."""
    from edge_ad_runtime.events import Event

    def wait() -> None:
        while received.reload.wait():
            received.reload.clear()
            try:
                line.reload(parse())
            except EdgeAdError as error:
                line.delivery.event(Event(kind="model refused", message=str(error)))

    threading.Thread(target=wait, name="edge-ad reload", daemon=True).start()


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
