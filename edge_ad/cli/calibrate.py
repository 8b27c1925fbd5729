"""`edge-ad calibrate`: the decision limit that fits the camera of this device."""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli.options import (
    FiniteRange,
    device_option,
    rate_option,
    require,
    threads_option,
    wrapped,
)
from edge_ad.cli.stream_options import split_name
from edge_ad_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edge_ad_runtime import FrameSource, Scorer
    from edge_ad_runtime.model.device_calibration import DeviceCalibration
    from edge_ad_runtime.stream.calibrate import GoodParts

_COUNT = 30


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--camera",
    metavar="[NAME=]SRC",
    help="A camera, video or URL, as for `edge-ad stream`; the limit applies to this camera only.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="A folder of pictures of good parts instead; the limit applies to every camera that has "
    "no limit of its own.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help=f"How many different parts to use. Default: {_COUNT} from a camera, all pictures of a "
    "folder.",
)
@rate_option(default="that of the model file")
@click.option(
    "--patience",
    type=FiniteRange(min=0.1, max=1e6),
    default=60.0,
    show_default=True,
    help="Give up after this many seconds without a new part.",
)
@click.option(
    "--keep-alike", is_flag=True, help="Count pictures that look alike as different parts."
)
@click.option("--yes", is_flag=True, help="Write the limit despite doubts, without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@device_option
@threads_option
def calibrate(
    model: Path,
    camera: str | None,
    images: Path | None,
    count: int | None,
    false_alarm_rate: float | None,
    patience: float,
    keep_alike: bool,
    yes: bool,
    as_json: bool,
    device: str,
    threads: int | None,
) -> None:
    """Set the limit of MODEL from good parts at the camera in use.

    Writes MODEL.calibration.json, which `edge-ad stream` and `edge-ad predict` use from then on.
    The scores from training are shifted to the median of the camera's scores, and the limit follows
    from both. Show only good parts while it runs. Nothing is changed until the end.
    """
    if (camera is None) == (images is None):
        raise click.UsageError("give either --camera or --images")
    require(("cv2", "onnxruntime"), extra="cpu", purpose="calibration")
    from edge_ad_runtime import Scorer
    from edge_ad_runtime.files import make_writable
    from edge_ad_runtime.model.device_calibration import (
        DeviceCalibration,
        combine,
    )
    from edge_ad_runtime.model.location import calibration_path
    from edge_ad_runtime.stream.calibrate import doubts

    scorer = Scorer(model, device=device, threads=threads)
    make_writable(calibration_path(model).parent)  # before anybody shows parts for minutes
    name, source = _open(camera, images)
    if images is None and count is None:
        count = _COUNT
    parts = _collect(scorer, source, count=count, patience=patience, keep_alike=keep_alike)
    _settle(doubts(parts, scorer.info), yes=yes)
    calibration = combine(
        scorer.info.calibration, parts.scores, parts.map_maxima, rate=false_alarm_rate
    )
    new = DeviceCalibration(
        camera=name,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        n_device=len(parts.scores),
        calibration=calibration,
    )
    _report(new, scorer.info.threshold, _write(model, scorer.content, new), as_json=as_json)


def _open(camera: str | None, images: Path | None) -> "tuple[str, FrameSource]":
    """Return the name under which the limit is kept, and the source of the parts.

    Raises:
        CameraError, DataError: the source cannot be opened.
    """
    from edge_ad_runtime import open_source
    from edge_ad_runtime.cameras import PictureFiles
    from edge_ad_runtime.model.device_calibration import ANY_CAMERA
    from edge_ad_runtime.model.picture_file import list_pictures
    from edge_ad_runtime.stream.config import default_name

    if images is not None:
        if not images.is_dir():
            raise DataError(f"expected a folder of pictures as --images, found none at {images}")
        return ANY_CAMERA, PictureFiles(list_pictures(images), name=str(images))
    name, spec = split_name(camera or "")
    return name or default_name(spec), open_source(spec)


def _collect(
    scorer: "Scorer", source: "FrameSource", *, count: int | None, patience: float, keep_alike: bool
) -> "GoodParts":
    """Score good parts, with their number on the terminal.

    Raises:
        DataError: they cannot give a limit.
    """
    from edge_ad_runtime.stream.calibrate import collect_good_parts, refusal

    goal = "" if count is None else f" of {count}"

    def show(found: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{found}{goal} parts", err=True, nl=False)

    parts = collect_good_parts(
        scorer, source, count=count, patience=patience, keep_alike=keep_alike, progress=show
    )
    click.echo(f"\r{len(parts.scores)}{goal} parts", err=True)
    refused = refusal(parts)
    if refused is not None:
        raise DataError(refused)
    return parts


def _settle(found: list[str], *, yes: bool) -> None:
    """Tell the doubts, and go on only if somebody says so.

    Raises:
        ConfigError: nobody does.
    """
    for doubt in found:
        click.echo(f"doubtful: {doubt}", err=True)
    if not found or yes:
        return
    if sys.stdin.isatty() and click.confirm("Write the limit all the same?", err=True):
        return
    raise ConfigError(
        "the limit has not been changed because of the doubts above: collect other parts, or give "
        "--yes"
    )


def _write(model: Path, digest: str, new: "DeviceCalibration") -> Path:
    from edge_ad_runtime.model.device_calibration import write_calibration

    try:
        return write_calibration(model, digest, new)
    except OSError as error:
        raise DataError(
            f"cannot write the calibration beside {model}: {error.strerror}: check the permissions "
            "of the folder; nothing has been changed"
        ) from error


def _report(new: "DeviceCalibration", before: float, path: Path, *, as_json: bool) -> None:
    calibration = new.calibration
    figures: dict[str, Any] = {
        "path": str(path),
        "camera": new.camera,
        "limit": calibration.limit(),
        "model_limit": before,
        "map_limit": calibration.map_limit(),
        "rate": calibration.rate,
        "basis": calibration.basis,
        "n": calibration.n,
        "n_device": new.n_device,
        "n_set_aside": calibration.n_set_aside,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    where = f"at {new.camera}" if new.camera else "at every camera without one of its own"
    click.echo(f"limit        {calibration.limit():.4f} {where}, {before:.4f} in the model file")
    click.echo(wrapped(f"promise      {calibration.promise()}"))
    click.echo(f"written      {path}")
