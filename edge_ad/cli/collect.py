"""`edge-ad collect`: pictures for training, taken at the camera itself."""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import require
from edge_ad.cli.stream_options import split_name
from edge_ad_runtime.errors import ConfigError, DataError, counted
from edge_ad_runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from edge_ad_runtime.stream.collect import Collection

_LIVE_SECONDS = 1.0
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_LONGEST_SECONDS = 86_400.0


def _parse_time(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Return the seconds of a time such as 2s, 500ms, 1.5 or 2m.

    Raises:
        click.BadParameter: it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h)?", text)
    seconds = float(match[1]) * _UNITS[match[2] or ""] if match else 0.0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise click.BadParameter(f"expected a time such as 2s, 500ms or 1m, got {text!r}")
    return seconds


@click.command()
@click.option(
    "--camera",
    required=True,
    metavar="[NAME=]SRC",
    help="As for `edge-ad stream`: index, device, URL, pipeline, video, folder, glob, PLUGIN:TEXT.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder for the pictures, such as datasets/cable/train/good; existing files are kept.",
)
@click.option("--count", type=click.IntRange(min=1), help="End after this many pictures.")
@click.option(
    "--every",
    metavar="TIME",
    callback=_parse_time,
    help="Time between two pictures, such as 2s. Default: 1s for a camera; every picture of files.",
)
@click.option(
    "--key",
    metavar="KEY",
    help="Take a picture when this key is pressed: space, enter, tab, or a letter.",
)
@click.option(
    "--trigger",
    type=click.Choice(["stdin", "http", "mqtt"]),
    help="Take a picture for each line of stdin, each POST to /trigger, or each message at "
    "edge-ad/trigger.",
)
@click.option(
    "--mqtt", metavar="URL", help="With --trigger mqtt: the broker, mqtt[s]://[USER@]HOST[:PORT]."
)
@click.option(
    "--serve", metavar="[HOST:]PORT", help="With --trigger http: the address to listen on."
)
@click.option(
    "--watch", is_flag=True, help="With a folder: take the pictures that arrive from now on."
)
@click.option("--keep-alike", is_flag=True, help="Also keep pictures of a static scene.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def collect(
    camera: str,
    output: Path,
    count: int | None,
    every: float | None,
    key: str | None,
    trigger: str | None,
    mqtt: str | None,
    serve: str | None,
    watch: bool,
    keep_alike: bool,
    as_json: bool,
) -> None:
    """Take pictures for training with the camera that will be used.

    No model is needed. A picture that shows the same static scene as the one before it is skipped.
    Blurred, over- or under-exposed pictures are kept, with a warning. Press Ctrl-C to end; pictures
    taken so far are kept. If the camera is lost, reopening is tried until it succeeds.
    """
    if sum(option is not None for option in (every, key, trigger)) > 1:
        raise click.UsageError("give only one of --every, --key and --trigger")
    if (mqtt is None) == (trigger == "mqtt"):
        raise click.UsageError("--trigger mqtt and --mqtt URL belong together")
    if (serve is None) == (trigger == "http"):
        raise click.UsageError("--trigger http and --serve [HOST:]PORT belong together")
    require(("cv2",), extra="cpu", purpose="collecting pictures")
    from edge_ad.cli.collect_requests import asked_by
    from edge_ad_runtime.cameras import open_source
    from edge_ad_runtime.cameras.feed import Feed
    from edge_ad_runtime.events import Event
    from edge_ad_runtime.files import make_writable
    from edge_ad_runtime.stream.collect import Collection
    from edge_ad_runtime.stream.collect import collect as collect_pictures
    from edge_ad_runtime.stream.triggers import Triggers

    name, camera = split_name(camera)
    _refuse_own_folder(camera, output)
    changed, collection = threading.Condition(), Collection()
    make_writable(output)
    source = open_source(camera, watch=watch)
    tell = _Teller(collection, count)

    def report(event: Event) -> None:
        tell(event.message)

    feed = Feed(
        name or source.name,
        source,
        reopen=lambda: open_source(camera),
        report=report,
        changed=changed,
    )
    usual = _LIVE_SECONDS if source.live else 0.0
    triggers = Triggers([feed.name], report) if key or trigger else None
    work = partial(
        collect_pictures,
        feed,
        output,
        collection,
        changed=changed,
        every=usual if every is None else every,
        triggers=triggers,
        count=count,
        keep_alike=keep_alike,
        tell=tell,
    )
    with asked_by(triggers, report, key=key, mqtt=mqtt, serve=serve):
        interrupted = _interrupted(work, output, collection, tell)
    _report(collection, output, as_json=as_json)
    if interrupted:
        raise SystemExit(130)
    if not collection.paths:
        raise DataError(f"no picture was kept: {collection.complaint or 'nobody asked for one'}")


def _refuse_own_folder(camera: str, output: Path) -> None:
    """Refuse to copy a folder's pictures into the same folder.

    Raises:
        ConfigError: source and output are one.
    """
    if os.path.isdir(camera) and output.is_dir() and os.path.samefile(camera, output):
        raise ConfigError(f"expected an --output other than the folder {output} itself")


def _interrupted(
    work: Callable[[], None], output: Path, collection: "Collection", tell: "_Teller"
) -> bool:
    """Do the work, and return whether somebody ended it with Ctrl-C."""
    from edge_ad_runtime.files import remove_leftovers

    try:
        work()
    except KeyboardInterrupt:
        remove_leftovers(output)
        if collection.paths and not collection.paths[-1].exists():
            collection.paths.pop()  # the one that was about to be written
        return True
    finally:
        tell.end()
    return False


class _Teller:
    """Prints sentences, and between them how many pictures there are."""

    def __init__(self, collection: "Collection", count: int | None) -> None:
        self._collection = collection
        self._goal = "" if count is None else f" of {count}"
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if sys.stderr.isatty():
            self._thread = Supervisor().start("progress", self._show)

    def __call__(self, text: str) -> None:
        with self._lock:
            click.echo(f"\r\033[K{text}" if self._thread else text, err=True)

    def end(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            click.echo("\r\033[K", err=True, nl=False)

    def _show(self) -> None:
        while not self._closing.wait(0.2):
            with self._lock:
                click.echo(
                    f"\r\033[K{len(self._collection.paths)}{self._goal} pictures, "
                    f"{self._collection.alike} alike passed over",
                    err=True,
                    nl=False,
                )


def _report(collection: "Collection", output: Path, *, as_json: bool) -> None:
    """Print how many pictures there are, and how different they are."""
    differences = _range(collection.differences)
    brightness = _range([look.brightness for look in collection.looks])
    sharpness = _range([look.log_sharpness for look in collection.looks])
    doubts = {path.name: texts for path, texts in collection.doubts.items()}
    figures = {
        "folder": str(output),
        "pictures": len(collection.paths),
        "alike": collection.alike,
        "failed": collection.failed,
        "difference": differences,
        "brightness": brightness,
        "log_sharpness": sharpness,
        "doubts": doubts,
        "complaint": collection.complaint,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo(f"pictures     {len(collection.paths)} in {output}")
    click.echo(f"passed over  {collection.alike} of a static scene, {collection.failed} unreadable")
    if differences is not None:
        click.echo(
            "difference   {median:.1f} grey levels from one picture to the next "
            "(median; {lowest:.1f} to {highest:.1f})".format(**differences)
        )
    if brightness is not None:
        click.echo(
            "brightness   {median:.0f} of 255 (median; {lowest:.0f} to {highest:.0f})".format(
                **brightness
            )
        )
    if doubts:
        kinds = sorted({text.partition(":")[0] for texts in doubts.values() for text in texts})
        count = counted(len(doubts), "picture")
        click.echo(f"doubtful     {count} may be {', '.join(kinds)}: see above")
    if collection.complaint:
        click.echo(f"ended        {collection.complaint}")


def _range(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    from statistics import median

    return {"lowest": min(values), "median": median(values), "highest": max(values)}
