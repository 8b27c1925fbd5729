"""`edge-ad predict`: pictures in, verdicts out."""

import glob
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import (
    device_option,
    min_region_area_option,
    require,
    threads_option,
    threshold_option,
)
from edge_ad_runtime.errors import ConfigError, DataError, EdgeAdError, ModelFileError, counted

if TYPE_CHECKING:
    from edge_ad_runtime import CapturedFrame, OverlayFolder, Result, Scorer

logger = logging.getLogger(__name__)

_BATCH = 8

_ANOMALOUS = 3
"""Exit code of --fail-on-anomaly: errors have 1, wrong usage 2."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument(
    "paths", metavar="PATH...", type=click.Path(path_type=Path), nargs=-1, required=True
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@device_option
@threads_option
@threshold_option
@click.option(
    "--output", type=click.Path(path_type=Path), help="Keep overlays of anomalous pictures here."
)
@click.option(
    "--camera",
    metavar="NAME",
    help="Use the limit that `edge-ad calibrate` found for this camera. Default: that of a folder "
    "of pictures, or of the only camera.",
)
@min_region_area_option
@click.option(
    "--fail-on-anomaly",
    is_flag=True,
    help=f"Exit with code {_ANOMALOUS} if all pictures were scored and one or more are anomalous.",
)
def predict(
    model: Path,
    paths: tuple[Path, ...],
    as_json: bool,
    device: str,
    threads: int | None,
    threshold: float | None,
    output: Path | None,
    camera: str | None,
    min_region_area: float | None,
    fail_on_anomaly: bool,
) -> None:
    """Score pictures with the model file MODEL.

    A PATH is a picture, or a folder whose pictures are scored. It may be a glob in quotes, such as
    'parts/*/*.png'; `**` goes any number of folders deep.

    A picture that cannot be read is named on stderr, the others are scored, and the exit code is 1.
    Otherwise it is 0 whatever the verdicts, unless --fail-on-anomaly is given.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="scoring")
    from edge_ad_runtime import OverlayFolder, Scorer

    scorer = Scorer(model, device=device, threads=threads, min_region_area=min_region_area or 0.0)
    scorer = _calibrated(scorer, model, camera)
    if threshold is not None:
        scorer = scorer.with_threshold(threshold)
    click.echo(f"limit {scorer.threshold:.4f}: {scorer.info.threshold_rule}", err=True)
    overlays = OverlayFolder(output, scorer.info, replace=True) if output else None
    pictures = _Pictures(paths)
    verdicts = _verdicts(scorer, pictures, overlays)
    n_anomalous = _print_json(verdicts) if as_json else _print_table(verdicts)
    if pictures.failed:
        what = counted(pictures.failed, "path")
        raise EdgeAdError(f"{what} could not be scored: see the messages above")
    if fail_on_anomaly and n_anomalous:
        raise SystemExit(_ANOMALOUS)


def _calibrated(scorer: "Scorer", model: Path, camera: str | None) -> "Scorer":
    """Return the scorer with the limit that was found on this device, if one was.

    Raises:
        ConfigError: there is none for the camera.
    """
    from edge_ad_runtime.model.device_calibration import (
        ANY_CAMERA,
        read_calibrations,
    )

    try:
        known = read_calibrations(model, scorer.content)
    except ModelFileError as error:
        logger.warning("the limit of the model file is in force: %s", error)
        known = {}
    if camera is not None and camera not in known:
        names = ", ".join(name for name in known if name) or "none"
        raise ConfigError(f"there is no calibration for the camera {camera!r}, only for {names}")
    if camera is None:
        camera = next(iter(known)) if len(known) == 1 else ANY_CAMERA
        if known and camera not in known:
            logger.warning(
                "the limit of the model file is in force: choose one of the calibrations with "
                "--camera: %s",
                ", ".join(known),
            )
    return scorer.with_calibration(known[camera]) if camera in known else scorer


class _Pictures:
    """The frames of all paths; those that cannot be read are named and counted."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Look the folders through."""
        self.failed = 0
        self._paths: list[Path] = []
        for path in paths:
            try:
                self._paths += _expanded(path)
            except DataError as error:
                self.fail(error)

    def fail(self, error: DataError) -> None:
        """Name what failed."""
        self.failed += 1
        logger.error("%s", error)

    def batches(self) -> Iterator[list["CapturedFrame"]]:
        """Read ahead and deliver a few frames at a time."""
        from edge_ad_runtime import Reader
        from edge_ad_runtime.cameras import PictureFiles

        if not self._paths:
            return
        batch = []
        with Reader(PictureFiles(self._paths, name="pictures")) as reader:
            while True:
                try:
                    captured = reader.take()
                except DataError as error:
                    self.fail(error)
                    continue
                if captured is None:
                    break
                batch.append(captured)
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch


def _expanded(path: Path) -> list[Path]:
    """Return the pictures of a folder, or the file itself.

    Raises:
        DataError: the folder holds no picture.
    """
    from edge_ad_runtime.model.picture_file import list_pictures, no_pictures

    if glob.has_magic(str(path)) and not path.exists():
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise DataError(f"found nothing that matches {path}: check the path or the pattern")
        return [picture for match in matches for picture in _expanded(match)]
    if not path.is_dir():
        return [path]
    pictures = list_pictures(path)
    if not pictures:
        raise no_pictures(path)
    return pictures


def _verdicts(
    scorer: "Scorer", pictures: _Pictures, overlays: "OverlayFolder | None"
) -> Iterator[tuple["CapturedFrame", "Result"]]:
    whole = 1  # of a few pictures alone, the only batch is not filled up
    for batch in pictures.batches():
        whole = max(whole, len(batch))
        for captured, result in _scored(scorer, batch, whole, pictures):
            if overlays is not None:
                _keep(overlays, captured, result)
            yield captured, result


def _keep(overlays: "OverlayFolder", captured: "CapturedFrame", result: "Result") -> None:
    try:
        overlays.write(captured, result)
    except OSError as error:
        raise DataError(
            f"cannot write the overlay of {captured.path}: {error.strerror}: free some space"
        ) from error


def _scored(
    scorer: "Scorer", batch: Sequence["CapturedFrame"], whole: int, pictures: _Pictures
) -> Iterator[tuple["CapturedFrame", "Result"]]:
    """Score the batch at once; where that fails one by one, so that only the culprit is lost."""
    try:
        frames = [captured.frame for captured in batch]
        yield from zip(batch, scorer.score_batch(frames, fill_to=whole), strict=True)
    except DataError:
        for captured in batch:
            try:
                (result,) = scorer.score_batch([captured.frame], fill_to=whole)
                yield captured, result
            except DataError as error:
                pictures.fail(DataError(f"{captured.path}: {error}"))


def _print_json(verdicts: Iterable[tuple["CapturedFrame", "Result"]]) -> int:
    """Print an array, and return how many are anomalous."""
    array = [
        {"path": str(captured.path)} | result.fields(captured.timestamp)
        for captured, result in verdicts
    ]
    click.echo(json.dumps(array, indent=1))
    return sum(bool(entry["anomalous"]) for entry in array)


def _print_table(verdicts: Iterable[tuple["CapturedFrame", "Result"]]) -> int:
    """Print a row for each picture as it comes, and the totals; return how many are anomalous."""
    results = []
    for captured, result in verdicts:
        verdict = click.style("ANOMALOUS", fg="red") if result.anomalous else "good     "
        click.echo(f"{verdict}  {result.score:10.4f}  {captured.path}")
        results.append((result.anomalous, result.latency_ms, result.threshold))
    if not results:
        return 0
    anomalous, latencies, thresholds = zip(*results, strict=True)
    count = counted(len(results), "picture")
    click.echo(
        f"{count}, {sum(anomalous)} anomalous at the limit "
        f"{thresholds[0]:.4f}, {sum(latencies) / len(latencies):.1f} ms each"
    )
    return sum(anomalous)
