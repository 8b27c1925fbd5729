"""Decision limits from pictures of the device's own camera, kept in a file beside the model.

A camera that is brighter, softer or nearer than that of the training moves all scores alike. A few
dozen good parts show by how much, but not how far the scores spread; the training shows the spread.
So the scores of the training are shifted to the median of the camera's, and both together give the
limit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_ad_runtime.errors import ModelFileError
from edge_ad_runtime.files import locked, read_document, write_whole
from edge_ad_runtime.model.calibration import Calibration, calibrate, percent
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.location import calibration_path, installed

ANY_CAMERA = ""
"""The name under which a calibration from a folder of pictures is kept: it serves every camera."""

_VERSION = 1
_LARGEST_BYTES = 20_000_000
_LOCK_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class DeviceCalibration:
    """What the good parts of one camera score, and the limits that follow.

    Attributes:
        camera: its name in the stream; empty: every camera that has no calibration of its own.
        created_at: ISO 8601, UTC.
        n_device: pictures of this camera; the calibration's other scores are of the training.
        calibration: of both together.
    """

    camera: str
    created_at: str
    n_device: int
    calibration: Calibration

    def applied_to(self, info: ModelInfo) -> ModelInfo:
        """Return what a model says about itself with the limits of this calibration."""
        calibration = self.calibration
        return replace(
            info.promised_by(calibration, self.rule),
            score_range=(calibration.scores[0], calibration.scores[-1]),
            map_range=(info.map_range[0], calibration.map_maxima[-1]),
            calibration=calibration,
        )

    @property
    def rule(self) -> str:
        """How the limit was found, in words."""
        camera = f" at {self.camera}" if self.camera else ""
        others = self.calibration.n + self.calibration.n_set_aside - self.n_device
        return (
            f"calibrated{camera} on {self.created_at} for {percent(self.calibration.rate)} false "
            f"alarms, from {self.n_device} pictures of this device and {others} of the training"
        )


def combine(
    training: Calibration | None,
    scores: ArrayLike,
    map_maxima: ArrayLike,
    *,
    rate: float | None = None,
) -> Calibration:
    """Set limits from the good parts of a camera and those of the training.

    Args:
        training: of the model file; None where it has none: the camera's parts alone then.
        scores: (k,), of good parts at this camera.
        map_maxima: (k,), largest value of each part's anomaly map.
        rate: promised false-alarm rate; None: that of the training.

    Raises:
        DataError: fewer than 2 pictures, or scores that are not finite.
        ConfigError: the rate cannot be promised.
    """
    device_scores = np.asarray(scores, dtype=np.float64)
    device_maxima = np.asarray(map_maxima, dtype=np.float64)
    if training is None:
        return calibrate(device_scores, device_maxima, rate=rate, method="device")
    return calibrate(
        np.concatenate([_shifted(training.scores, device_scores), device_scores]),
        np.concatenate([_shifted(training.map_maxima, device_maxima), device_maxima]),
        rate=training.rate if rate is None else rate,
        method="device",
    )


def _shifted(training: ArrayLike, device: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(training, dtype=np.float64)
    return values + (np.median(device) - np.median(values))


def digest_of(model: Path) -> str:
    """Return the sha256 of a model file in hex.

    Raises:
        ModelFileError: it cannot be read.
    """
    try:
        return hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {model}: {error.strerror}") from error


def read_calibrations(model: Path, digest: str) -> dict[str, DeviceCalibration]:
    """Return the calibrations of a model, by camera; none where there is no file.

    Args:
        model: path of the model file.
        digest: sha256 of the model file that is in use.

    Raises:
        ModelFileError: the file cannot be read, is damaged, or belongs to another model.
    """
    path = calibration_path(model)
    try:
        document = read_document(path, version=_VERSION, most_bytes=_LARGEST_BYTES)
        if document is None:
            return {}
        entries = [_entry(item) for item in document["cameras"]]
    except OSError as error:
        raise ModelFileError(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError, ModelFileError) as error:
        raise ModelFileError(
            f"the calibration {path} is damaged ({error}): delete it, or run `edge-ad calibrate` "
            "again"
        ) from error
    if document.get("model_sha256") != digest:
        raise ModelFileError(
            f"the calibration {path} was made for another file than {model.name}: run `edge-ad "
            "calibrate` again, or delete it"
        )
    return {entry.camera: entry for entry in entries}


def write_calibration(model: Path, digest: str, new: DeviceCalibration) -> Path:
    """Put one camera's calibration into the file beside the model, and leave the other cameras'.

    What was made for another version of the model, or is damaged, is replaced.

    Args:
        model: path of the model file.
        digest: sha256 of the model file that gave the scores.
        new: the calibration.

    Returns:
        The path of the file.

    Raises:
        ModelFileError: another model lies there by now; its calibrations stay.
        OSError: it cannot be written; the old one stays.
    """
    model = installed(model)
    path = calibration_path(model)
    # Of the model file, so that no lock file is left: two cameras may be calibrated at once.
    with locked(model.resolve(), seconds=_LOCK_SECONDS, needed=False):
        if digest_of(model) != digest:
            raise ModelFileError(
                f"{model} was replaced by another model meanwhile: run `edge-ad calibrate` again"
            )
        try:
            known = read_calibrations(model, digest)
        except ModelFileError:
            known = {}
        known[new.camera] = new
        document = _document(model, digest, known)
        write_whole(path, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")
    return path


def _document(
    model: Path, digest: str, known: Mapping[str, DeviceCalibration]
) -> dict[str, object]:
    return {
        "version": _VERSION,
        "model": model.name,
        "model_sha256": digest,
        "cameras": [
            {
                "camera": item.camera,
                "when": item.created_at,
                "limit": item.calibration.limit(),
                "map_limit": item.calibration.map_limit(),
                "rate": item.calibration.rate,
                "basis": item.calibration.basis,
                "n": item.calibration.n,
                "n_device": item.n_device,
                "calibration": item.calibration.to_json(),
            }
            for _, item in sorted(known.items())
        ],
    }


def _entry(item: Any) -> DeviceCalibration:
    camera, when, n_device = item["camera"], item["when"], item["n_device"]
    texts = isinstance(camera, str) and isinstance(when, str)
    if not texts or isinstance(n_device, bool) or not isinstance(n_device, int):
        raise ValueError("expected texts as 'camera' and 'when', a whole number as 'n_device'")
    return DeviceCalibration(
        camera=camera,
        created_at=when,
        n_device=n_device,
        calibration=Calibration.from_json(item["calibration"]),
    )
