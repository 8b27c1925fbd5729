"""The files of a saved detector: its tensors, and a JSON document that says how it was made."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from edge_ad_runtime.errors import DataError, ModelFileError, NotFittedError
from edge_ad_runtime.files import temporary_folder, write_whole
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.info import Limits

if TYPE_CHECKING:
    from edge_ad.models.detector import Detector

TENSOR_FILE = "detector.safetensors"
JSON_FILE = "detector.json"
FORMAT_VERSION = 1

TRIAL_PIXELS = 2048 * 2048
"""Input of a restored detector that is tried; a trial with a larger one would take gigabytes."""

DAMAGED = (SafetensorError, RuntimeError, LookupError, ValueError, TypeError, NotFittedError)
"""What `restore` raises on tensors that belong to another configuration, or to none."""


def write_detector(detector: "Detector", folder: Path) -> None:
    """Write both files, each at once and complete; see `Detector.save`.

    Raises:
        DataError: they cannot be written.
    """
    try:
        _write(detector, folder)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: Exception) -> DataError:
    """Say why a detector or a run cannot be written."""
    strerror = error.strerror if isinstance(error, OSError) else None
    reason = strerror or (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"cannot write into {folder}: {reason}: check the folder and the disk's space")


def _write(detector: "Detector", folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in detector.state_dict().items()}
    with temporary_folder(folder) as new:
        tensors = new / TENSOR_FILE
        save_file(state, tensors)
        # safetensors leaves it to its owner alone, whatever the umask says.
        tensors.chmod(new.stat().st_mode & 0o666)
        digest = _sha256_of(tensors)
        os.replace(tensors, folder / TENSOR_FILE)
    document = {
        "format_version": FORMAT_VERSION,
        "method": detector.method,
        "options": detector.config.to_json(),
        "sha256": digest,
        "limits": asdict(detector.limits) if detector.limits else None,
        "calibration": detector.calibration.to_json() if detector.calibration else None,
    }
    write_whole(folder / JSON_FILE, json.dumps(document, indent=2).encode())


def read_description(
    folder: Path,
) -> tuple[str, dict[str, Any], Limits | None, Calibration | None]:
    """Read the JSON document of a saved detector, and check the tensors against it.

    Returns:
        The method, the options of its configuration, and limits and calibration, which are None
        where an early version wrote the files or where too few pictures were fitted.

    Raises:
        DataError: a file is missing or damaged, or of a newer format.
    """
    path = folder / JSON_FILE
    try:
        document = Document.parse(path.read_bytes().decode())
        version = document.whole("format_version", 1)
        method, expected = document.text("method"), document.text("sha256")
        options = document.table("options")
        limits, calibration = document.table("limits"), document.table("calibration")
        found = (
            method,
            options,
            Limits(**Limits.entries(Document(limits))) if limits else None,
            Calibration.from_json(calibration) if calibration else None,
        )
        digest = _sha256_of(folder / TENSOR_FILE)
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run with {JSON_FILE} and {TENSOR_FILE} in {folder}, "
            f"{Path(error.filename).name} is missing: train it with `edge-ad train`"
        ) from error
    except NotADirectoryError as error:
        raise DataError(
            f"expected the folder of a run, got the file {folder}: if it is a model file, "
            "edge_ad_runtime.Scorer reads it"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the run {folder}: {error.strerror}") from error
    except (ValueError, RecursionError, ModelFileError) as error:
        raise DataError(f"{path} is damaged ({error}): train the run again") from error
    if version > FORMAT_VERSION:
        raise DataError(newer(folder, method))
    if digest != expected:
        raise DataError(f"{folder / TENSOR_FILE} is damaged or incomplete: train the run again")
    return found


def restore(detector: "Detector", folder: Path) -> None:
    """Give a detector the tensors of its files, and let it score a black frame with them.

    Raises:
        One of `DAMAGED`: the tensors are not those of this detector.
    """
    state = load_file(folder / TENSOR_FILE)
    for name, _ in list(detector.named_buffers(recurse=False)):
        if name in state:
            setattr(detector, name, torch.empty_like(state[name]))
    detector.load_state_dict(state)
    detector.has_weights = True
    detector.to(detector.device)
    height, width = detector.preprocessing.input_size
    if height * width <= TRIAL_PIXELS:
        detector.predict([np.zeros((height, width, 3), np.uint8)])


def newer(folder: Path, method: str) -> str:
    """Say that a later version wrote a run."""
    return f"the run {folder} ({method}) was written by a newer edge-ad: update"


def _sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
