"""What a model file says about itself: metadata written by the exporter, read on the device.

A model file carries the SHA-256 of itself as the metadata entry `edge_ad.sha256`. The sum is taken
over the whole file with these 64 characters replaced by zeros, so that it covers the metadata as
well as the graph, and so that it can be checked before anything else interprets the bytes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.image import Preprocessing

FORMAT_VERSION = 1
"""Version of the model file; a reader refuses files of a higher one."""

VERSION_KEY = "edge_ad.format_version"
MODEL_KEY = "edge_ad.model"

COLOR_ORDER = "BGR"
"""Channel order of `frame`, as OpenCV gives it; the file says so for other readers than ours."""

CHECKSUM_METHOD = "sha256"
"""The JSON names it where the file carries a checksum, so that a lost one is noticed."""

CHECKSUM_KEY = "edge_ad.sha256"
BLANK = "0" * 64
"""What the exporter writes first, and what stands in for the checksum while it is computed."""

_DIGITS = 64
# How protobuf stores an entry: the key, the tag of the value, the value's length, the value.
_ENTRY = CHECKSUM_KEY.encode() + bytes([0x12, _DIGITS])

MAX_SIDE = 16384
"""Pixels of the longest side of an input, and the largest `resize`."""

SomeLimits = TypeVar("SomeLimits", bound="Limits")


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

    @classmethod
    def entries(cls, document: Document) -> dict[str, Any]:
        """Return the fields by name, each checked; raises ValueError where one cannot be."""
        return {
            "threshold": document.number("threshold"),
            "threshold_rule": document.text("threshold_rule"),
            "false_alarm_rate": document.number("false_alarm_rate", 0, 1),
            "score_range": document.interval("score_range"),
            "map_range": document.interval("map_range"),
            "map_threshold": document.number("map_threshold"),
        }

    def promised_by(
        self: SomeLimits, calibration: Calibration, rule: str | None = None
    ) -> SomeLimits:
        """Return the same with the limits of a calibration.

        Args:
            calibration: scores of good parts, with the promised rate.
            rule: how the limit was found; None: what the calibration promises, in words.
        """
        return replace(
            self,
            threshold=calibration.limit(),
            threshold_rule=calibration.promise() if rule is None else rule,
            false_alarm_rate=calibration.rate,
            map_threshold=calibration.map_limit(),
        )


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Limits):
    """Everything that the runtime and its user need to know about a model file.

    Attributes:
        method: name of the detector, such as `padim`.
        category: the product that the good parts showed.
        backbone: name of the feature network.
        input_size: (height, width) in pixels of what the backbone sees, and of the anomaly map.
        resize: shorter side in pixels before a centre crop to `input_size`; None: whole frame.
        resize_in_graph: the graph resizes by itself, its `frame` input may have any size.
        training: facts on the fit: `n_train`, `content_hash`, `seed`, `n_skipped`.
        metrics: figures on the test split, as in `metrics.json`.
        versions: package versions at export time.
        created_at: ISO 8601, UTC.
        target: what the graph was built for, such as `portable`.
        parity: figures of the comparison with PyTorch at export time.
        checksum: SHA-256 of the file in hex; None: the file carries none.
        calibration: scores of good parts and the promise that follows; None: the file is of a
            version that did not have it.
    """

    method: str
    category: str
    backbone: str
    input_size: tuple[int, int]
    created_at: str
    resize: int | None = None
    resize_in_graph: bool = False
    target: str = "portable"
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict, repr=False)
    checksum: str | None = None
    calibration: Calibration | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How a frame becomes the graph's input."""
        return Preprocessing(
            input_size=self.input_size, resize=self.resize, in_graph=self.resize_in_graph
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, and the colour order beside it."""
        calibration = self.calibration.to_json() if self.calibration else None
        return asdict(self) | {"calibration": calibration, "color_order": COLOR_ORDER}

    def to_metadata(self, *, checksum: bool = False) -> dict[str, str]:
        """Return the key-value strings that go into the model file.

        Args:
            checksum: leave room for one, which `stamp` fills in.
        """
        method = CHECKSUM_METHOD if checksum else None
        document = self.to_json() | {"checksum": method}
        strings = {
            VERSION_KEY: str(FORMAT_VERSION),
            MODEL_KEY: json.dumps(document, allow_nan=False, sort_keys=True),
        }
        return strings | {CHECKSUM_KEY: BLANK} if checksum else strings

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], checksum: str | None = None) -> "ModelInfo":
        """Read the strings back; keys that a later minor version added are ignored.

        Args:
            metadata: the key-value strings of a model file.
            checksum: what `verify` found in the file.

        Raises:
            ModelFileError: a string is missing, damaged, of a newer format, or says what cannot be.
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
            return cls(**_read(Document.parse(metadata[MODEL_KEY]), checksum))
        except (ValueError, RecursionError, DataError) as error:
            raise ModelFileError(
                f"the metadata '{MODEL_KEY}' of the model file is damaged ({error}): "
                "copy the file again or export the run again"
            ) from error


def _read(document: Document, checksum: str | None) -> dict[str, Any]:
    """Check every entry by type and range.

    Raises:
        ValueError: an entry is missing or cannot be.
        DataError: the sizes do not fit together.
    """
    if document.text("color_order", COLOR_ORDER) != COLOR_ORDER:
        raise ValueError(f"expected the color_order {COLOR_ORDER}")
    if document.option("checksum") is not None and checksum is None:
        raise ValueError(f"the metadata '{CHECKSUM_KEY}' is missing")
    values = Limits.entries(document)
    values |= {name: document.text(name) for name in ("method", "category", "backbone")}
    values |= {
        "input_size": document.size("input_size", MAX_SIDE),
        "resize": document.count("resize", MAX_SIDE),
        "resize_in_graph": document.flag("resize_in_graph"),
        "created_at": document.time("created_at"),
        "target": document.text("target", "portable"),
        "checksum": checksum,
    }
    for name in ("training", "metrics", "versions", "parity"):
        values[name] = document.table(name)
    calibration = document.table("calibration")
    values["calibration"] = Calibration.from_json(calibration) if calibration else None
    if not all(isinstance(version, str) for version in values["versions"].values()):
        raise ValueError("expected texts in 'versions'")
    Preprocessing(input_size=values["input_size"], resize=values["resize"])
    return values


def _check_version(text: str) -> None:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ModelFileError(
            f"expected a whole number as '{VERSION_KEY}', got {text[:60]!r}: export the run again"
        )
    if int(text) > FORMAT_VERSION:
        raise ModelFileError(
            f"the model file has format version {text}, but this runtime reads up to "
            f"{FORMAT_VERSION}: update edge-ad on this device, or export with the older version"
        )


def stamp(model: bytes) -> bytes:
    """Return a model file whose blank checksum is filled in.

    Args:
        model: a model file with the metadata entry `edge_ad.sha256` = `BLANK`.

    Raises:
        ModelFileError: the entry is not there.
    """
    place = _place(model)
    if place is None:
        raise ModelFileError(f"expected the metadata '{CHECKSUM_KEY}' in the file, found none")
    digest = _digest(model, place)
    return model[:place] + digest.encode() + model[place + _DIGITS :]


def verify(model: bytes) -> str | None:
    """Check a model file against its own checksum.

    Returns:
        The checksum in hex; None: the file carries none, because an early version wrote it.

    Raises:
        ModelFileError: the file is not what the exporter wrote.
    """
    place = _place(model)
    if place is None:
        return None
    expected = model[place : place + _DIGITS].decode("ascii", errors="replace")
    if _digest(model, place) != expected:
        raise ModelFileError(
            "it is damaged, its checksum does not fit: copy it again or export the run again"
        )
    return expected


_MOST_METADATA = 2**20
"""Bytes of the JSON document in which the target is looked for; real ones have some 10 kB."""


def target_of(model: bytes) -> str | None:
    """Return what a model file was built for, as far as its bytes tell before they are opened.

    Returns:
        `ModelInfo.target`, or None where no metadata can be found.
    """
    entry = model.rfind(MODEL_KEY.encode() + b"\x12")
    begin = model.find(b'{"', entry)
    if entry < 0 or begin < 0:
        return None
    text = model[begin : begin + _MOST_METADATA].decode(errors="replace")
    try:
        document, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    target = document.get("target")
    return target if isinstance(target, str) else None


def _place(model: bytes) -> int | None:
    """Return where the checksum begins. Metadata ends a model file, so the last entry counts."""
    found = model.rfind(_ENTRY)
    return None if found < 0 else found + len(_ENTRY)


def _digest(model: bytes, place: int) -> str:
    digest = hashlib.sha256(memoryview(model)[:place])
    digest.update(BLANK.encode())
    digest.update(memoryview(model)[place + _DIGITS :])
    return digest.hexdigest()
