"""`edge-ad stream`: cameras in, one JSON line for each verdict and event out."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.options import DEFAULT_RESULTS, require
from edge_ad.cli.signals import Signals
from edge_ad.cli.stream_options import merged, stream_options, to_document
from edge_ad_runtime.errors import ConfigError, EdgeAdError, StuckError, counted

if TYPE_CHECKING:
    from edge_ad_runtime.stream.config import StreamConfig
    from edge_ad_runtime.stream.loops import StreamSummary
    from edge_ad_runtime.stream.stream import Stream


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file; options override it.")
@click.option("--check", is_flag=True, help="Only say what is wrong with the configuration.")
@stream_options
def stream(config: Path | None, check: bool, **options: Any) -> None:
    """Score the frames of cameras, videos and folders.

    Verdicts and events go to stdout as lines of JSON, everything else to stderr. Every frame of a
    file or folder is scored once. Of a camera, the newest frame is scored each time, and the frames
    skipped meanwhile are counted. A lost camera is reported as an event, and reopening it is tried
    until it succeeds. After SIGHUP, thresholds and model files are read again. Exit code: 0 at the
    end or after SIGTERM; 1 if the configuration was refused, a frame failed, a camera was lost for
    good or a verdict was lost; 2 for wrong usage; 130 after Ctrl-C.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="streaming")
    if config is None and not options["cameras"]:
        raise click.UsageError("give --camera or --config")
    _fill_closed_descriptors()
    with Signals() as signals:
        parsed = _parse(config, options)
        if check:
            click.echo(f"{counted(len(parsed.cameras), 'camera')}, no mistakes")
            for model in sorted({camera.model for camera in parsed.cameras}):
                if not model.is_file():
                    _say(f"the model file {model} is not here yet; the stream needs it to start")
            return
        from edge_ad_runtime.stream.stream import Stream

        with Stream(parsed) as running, _served(running):
            _announce(running)
            signals.watch(
                running.supervisor, lambda: _reload(running, lambda: _parse(config, options))
            )
            try:
                summary = running.run(signals.stop)
            except StuckError as error:
                click.echo(f"Error: {error}", err=True)
                # The end of Python waits for the very lock that the stuck thread may hold.
                os._exit(1)
        _say(str(summary))
        _end(summary, signals.received)


def _fill_closed_descriptors() -> None:
    """Open the null device where stdin, stdout or stderr was closed at the start.

    The next file to be opened would get that number, and with it what C code prints.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


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
        document["model"] = str(_only_model())
    return parse_config(document)


def _all_have_models(cameras: object) -> bool:
    return isinstance(cameras, list) and all(
        isinstance(camera, Mapping) and "model" in camera for camera in cameras
    )


def _only_model() -> Path:
    """Return the newest export below ./results, if all exports there are of one category.

    Raises:
        ConfigError: there is none, or it is not clear which product the camera sees.
    """
    from edge_ad.runs import all_models

    models = all_models(DEFAULT_RESULTS)
    if not models:
        raise ConfigError(
            "found no model file: give one with --model, set $EDGE_AD_MODEL, or write one below "
            f"./{DEFAULT_RESULTS} with `edge-ad export`"
        )
    categories = sorted({model.parents[1].name for model in models})
    if len(categories) > 1:
        raise ConfigError(
            f"./{DEFAULT_RESULTS} holds model files of {len(categories)} categories "
            f"({', '.join(categories)}): say with --model which one to use"
        )
    return models[0]


def _say(text: str) -> None:
    """Print to stderr. If nobody can read it any more, the inspection goes on without."""
    try:
        click.echo(text, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _announce(stream: "Stream") -> None:
    """Say which models run, and which limit is in force at each camera."""
    for model in stream.models:
        info = model.slot.scorer.info
        _say(
            f"{model.path}: {info.method} on {info.category}, exported {info.created_at}, "
            f"{model.slot.scorer.provider}"
        )
    for camera in stream.config.cameras:
        info = stream.info_of(camera.name)
        _say(f"{camera.name}: limit {info.threshold:.4g}, {info.threshold_rule}")


@contextmanager
def _served(stream: "Stream") -> Iterator[None]:
    """Serve the live page meanwhile, if it is wanted."""
    config = stream.config.outputs.serve
    if config is None:
        yield
        return
    from edge_ad_runtime.page.server import PageServer, local_url

    server = PageServer(stream, config)
    _say(f"live page on {local_url(server.address)}/")
    try:
        yield
    finally:
        server.close()


def _reload(stream: "Stream", parse: Callable[[], "StreamConfig"]) -> None:
    """Read the configuration again; one that cannot be used is an event."""
    from edge_ad_runtime.events import Event

    try:
        stream.reload(parse())
    except EdgeAdError as error:
        stream.delivery.event(Event(kind="model refused", message=str(error)))


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
    problems = []
    if summary.failed:
        problems.append(f"{counted(summary.failed, 'frame')} failed")
    if summary.lost_outputs:
        problems.append(f"an output lost {counted(summary.lost_outputs, 'verdict')}")
    if problems:
        raise EdgeAdError(f"{' and '.join(problems)}: see the messages above")
