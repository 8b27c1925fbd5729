"""The detectors, and how a saved one is loaded."""

from pathlib import Path

from edge_ad.config import CONFIGS, DetectorConfig
from edge_ad.models.detector import Detector, Prediction
from edge_ad.models.fusion import Fusion
from edge_ad.models.padim import PaDiM
from edge_ad.models.patchcore import PatchCore
from edge_ad.models.saved import DAMAGED, JSON_FILE, TENSOR_FILE, newer, read_description, restore
from edge_ad.models.spade import SPADE
from edge_ad.runs import METRICS_FILE, read_metrics, unchanged
from edge_ad_runtime.errors import ConfigError, DataError

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
    "read_detector",
]


def create(config: DetectorConfig) -> Detector:
    """Return the unfitted detector of a configuration, by its class."""
    return DETECTORS[config.method](**vars(config))


def load(folder: Path | str, device: str = "auto") -> Detector:
    """Load a detector that `Detector.save` wrote, or that of a run; no pickle, no download.

    Raises:
        DataError: the folder holds no run, a damaged one, or one of a newer format.
    """
    with unchanged(Path(folder)):
        return read_detector(folder, device)


def read_detector(folder: Path | str, device: str = "auto") -> Detector:
    """As `load`, for whoever keeps trainings away from the folder already."""
    folder = Path(folder)
    method, options, limits, calibration = read_description(folder)
    if method not in DETECTORS:
        raise DataError(newer(folder, method))
    try:
        detector = create(CONFIGS[method].from_json(options, weights=None, device=device))
        restore(detector, folder)
    except (ConfigError, *DAMAGED) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{folder / JSON_FILE} and {TENSOR_FILE} do not fit together ({reason}): "
            "train the run again"
        ) from error
    detector.limits, detector.calibration = limits, calibration
    if (folder / METRICS_FILE).is_file():  # a run: its limit may have been changed since
        metrics = read_metrics(folder)
        detector.limits, detector.calibration = metrics.limits, metrics.calibration
        detector.run = folder
    return detector
