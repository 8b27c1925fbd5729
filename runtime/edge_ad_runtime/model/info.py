"""What a model file says about itself: metadata written by the exporter, read on the device."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edge_ad_runtime.errors import ModelFileError
from edge_ad_runtime.model.image import Preprocessing

FORMAT_VERSION = 1
"""Version of the model file; a reader refuses files of a higher one."""

VERSION_KEY = "edge_ad.format_version"
MODEL_KEY = "edge_ad.model"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What good parts look like to a detector, as in `metrics.json` and in the model file.

    Attributes:
        threshold: decision limit; `score >= threshold` is anomalous.
        threshold_rule: how the threshold was found, in words.
        false_alarm_rate: share of good parts expected at or above the threshold, 0..1.
        score_range: (lowest, highest) score of the held-out good pictures.
        map_range: (lowest, highest) anomaly-map value of the held-out good pictures.
        map_threshold: map value from which a pixel is drawn as defective. Score and map need not
            have one unit (SPADE), so the map has a limit of its own.
    """

    threshold: float
    threshold_rule: str
    false_alarm_rate: float
    score_range: tuple[float, float]
    map_range: tuple[float, float]
    map_threshold: float


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Limits):
    """Everything that the runtime and its user need to know about a model file.

    Attributes:
        method: `spade`, `padim` or `patchcore`.
        category: the product that the good parts showed.
        backbone: name of the feature network.
        input_size: (height, width) in pixels of what the backbone sees, and of the anomaly map.
        resize: shorter side in pixels before a centre crop to `input_size`; None: whole frame.
        resize_in_graph: the graph resizes by itself, its `frame` input may have any size.
        color_order: channel order of `frame`; always BGR, as OpenCV gives it.
        training: facts on the fit: `n_train`, `content_hash`, `seed`, `n_skipped`.
        metrics: figures on the test split, as in `metrics.json`.
        versions: package versions at export time.
        created_at: ISO 8601, UTC.
        target: what the graph was lowered for, such as `portable`.
        parity: figures of the comparison with PyTorch at export time.
    """

    method: str
    category: str
    backbone: str
    input_size: tuple[int, int]
    created_at: str
    resize: int | None = None
    resize_in_graph: bool = False
    color_order: str = "BGR"
    target: str = "portable"
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a frame becomes the graph's input."""
        return Preprocessing(
            input_size=self.input_size, resize=self.resize, in_graph=self.resize_in_graph
        )

    def to_metadata(self) -> dict[str, str]:
        """Return the key-value strings that go into the model file."""
        return {
            VERSION_KEY: str(FORMAT_VERSION),
            MODEL_KEY: json.dumps(asdict(self), allow_nan=False, sort_keys=True),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "ModelInfo":
        """Read the strings back; keys that a later minor version added are ignored.

        Raises:
            ModelFileError: the strings are missing, damaged or of a newer format.
        """
        if VERSION_KEY not in metadata or MODEL_KEY not in metadata:
            raise ModelFileError(
                f"expected an edge-ad model file with metadata '{VERSION_KEY}' and '{MODEL_KEY}', "
                "found neither: export the run with `edge-ad export`"
                if VERSION_KEY not in metadata
                else f"the model file lacks the metadata '{MODEL_KEY}': export the run again"
            )
        _check_version(metadata[VERSION_KEY])
        try:
            document = json.loads(metadata[MODEL_KEY])
            known = {key: document[key] for key in _names() if key in document}
            for pair in ("input_size", "score_range", "map_range"):
                known[pair] = tuple(known[pair])
            return cls(**known)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"the metadata '{MODEL_KEY}' of the model file is damaged ({error}): "
                "export the run again"
            ) from error


def _names() -> list[str]:
    return [item.name for item in fields(ModelInfo)]


def _check_version(text: str) -> None:
    if not text.isdigit():
        raise ModelFileError(
            f"expected a whole number as '{VERSION_KEY}', got {text!r}: export the run again"
        )
    if int(text) > FORMAT_VERSION:
        raise ModelFileError(
            f"the model file has format version {text}, this runtime reads up to {FORMAT_VERSION}: "
            "update edge-ad on this device, or export with the older version"
        )
