"""The detectors, and how a saved one is loaded."""

from pathlib import Path

from edge_ad.config import CONFIGS, DetectorConfig
from edge_ad.models.detector import DAMAGED, JSON_FILE, TENSOR_FILE, Detector, Prediction, sha256_of
from edge_ad.models.fusion import Fusion
from edge_ad.models.padim import PaDiM
from edge_ad.models.patchcore import PatchCore
from edge_ad.models.spade import SPADE
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.model.document import Document

DETECTORS: dict[str, type[Detector]] = {
    detector.method: detector for detector in (SPADE, PaDiM, PatchCore, Fusion)
}

__all__ = [
    "DETECTORS",
    "SPADE",
    "Detector",
    "Fusion",
    "PaDiM",
    "PatchCore",
    "Prediction",
    "create",
    "load",
]


def create(config: DetectorConfig) -> Detector:
    """Return the unfitted detector of a configuration, by its class."""
    return DETECTORS[config.method](**vars(config))


def load(folder: Path | str, device: str = "auto") -> Detector:
    """Load a detector that `Detector.save` wrote; no pickle, no download.

    Raises:
        DataError: the folder holds no run, a damaged one, or one of a newer format.
    """
    folder = Path(folder)
    path = folder / JSON_FILE
    try:
        document = Document.parse(path.read_bytes().decode())
        version = document.whole("format_version", 1)
        method, expected = document.text("method"), document.text("sha256")
        options = document.table("options")
        digest = sha256_of(folder / TENSOR_FILE)
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run with {JSON_FILE} and {TENSOR_FILE} in {folder}, "
            f"{Path(error.filename).name} is missing: train it with `edge-ad train`"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the run {folder}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}): train the run again") from error
    if version > 1 or method not in DETECTORS:
        raise DataError(
            f"the run {folder} ({method}, format {version}) was written by a newer edge-ad: update"
        )
    if digest != expected:
        raise DataError(f"{folder / TENSOR_FILE} is damaged or incomplete: train the run again")
    try:
        config = CONFIGS[method].from_json(options, weights=None, device=device)
        detector = create(config)
        detector.restore(folder / TENSOR_FILE)
    except (ConfigError, *DAMAGED) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} and {TENSOR_FILE} do not fit together ({reason}): train the run again"
        ) from error
    return detector
