"""The detectors, and how a saved one is loaded."""

import json
from pathlib import Path

from edge_ad.config import CONFIGS, DetectorConfig
from edge_ad.models.detector import JSON_FILE, TENSOR_FILE, Detector, Prediction, sha256_of
from edge_ad.models.fusion import Fusion
from edge_ad.models.padim import PaDiM
from edge_ad.models.patchcore import PatchCore
from edge_ad.models.spade import SPADE
from edge_ad_runtime.errors import DataError

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
    try:
        document = json.loads((folder / JSON_FILE).read_text())
        digest = sha256_of(folder / TENSOR_FILE)
        method, options = document["method"], document["options"]
        expected, version = document["sha256"], document["format_version"]
    except FileNotFoundError as error:
        raise DataError(
            f"expected a run with {JSON_FILE} and {TENSOR_FILE} in {folder}, "
            f"{Path(error.filename).name} is missing: train it with `edge-ad train`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / JSON_FILE} is damaged ({error}): train the run again"
        ) from error
    if version > 1 or method not in DETECTORS:
        raise DataError(
            f"the run {folder} ({method}, format {version}) was written by a newer edge-ad: update"
        )
    if digest != expected:
        raise DataError(f"{folder / TENSOR_FILE} is damaged or incomplete: train the run again")
    detector = create(CONFIGS[method].from_json(options, weights=None, device=device))
    detector.restore(folder / TENSOR_FILE)
    return detector
