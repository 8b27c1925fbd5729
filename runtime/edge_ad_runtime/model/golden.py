"""Golden frames: small pictures inside a model file, with what the model must make of them.

A device can prove with them that it computes what the workstation computed, before a model takes
over. They are frames of the size of the model's input, so that no resize stands between the two.
The metadata entry `edge_ad.golden` holds them; readers that do not know it go on without.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2

from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.picture_file import decode_picture
from edge_ad_runtime.model.result import Result

GOLDEN_KEY = "edge_ad.golden"

MOST_FRAMES = 8

NEGLIGIBLE = 0.01
"""Of the decision limit: differences of smaller scores are compared with this. SPADE gives almost 0
to the pictures that it was fitted on, and only the rounding would be compared."""


class PreparedScorer(Protocol):
    """What golden frames need of a `Scorer`, which reads them itself."""

    info: ModelInfo

    def score_prepared(self, prepared: Sequence[Frame]) -> list[Result]:
        """Score frames of the size of the model's input."""


@dataclass(frozen=True, kw_only=True)
class GoldenFrame:
    """One picture, and what the model made of it when it was exported.

    Attributes:
        picture: a PNG file, of the size of the model's input.
        score: in the unit of the decision limit.
        map_maximum: the largest value of the anomaly map.
    """

    picture: bytes
    score: float
    map_maximum: float


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The golden frames of a model file.

    Attributes:
        frames: at most `MOST_FRAMES`.
        tolerance: largest difference on another machine, 0..1, relative to the expected value, or
            to `NEGLIGIBLE` of the decision limit where that is more.
    """

    frames: tuple[GoldenFrame, ...]
    tolerance: float

    @classmethod
    def record(cls, scorer: PreparedScorer, frames: list[Frame], tolerance: float) -> "Golden":
        """Score frames of the size of the model's input, and keep both.

        Raises:
            DataError: a frame cannot be scored.
        """
        scored = zip(frames, scorer.score_prepared(frames), strict=True)
        return cls(
            frames=tuple(
                GoldenFrame(
                    picture=_as_png(frame),
                    score=result.score,
                    map_maximum=float(result.anomaly_map.max()),
                )
                for frame, result in scored
            ),
            tolerance=tolerance,
        )

    def check(self, scorer: PreparedScorer) -> None:
        """Score the frames again, one by one.

        Raises:
            ModelFileError: a picture cannot be scored, or is scored differently here.
            DeviceError: the device failed.
        """
        floor = max(NEGLIGIBLE * abs(scorer.info.threshold), 1e-6)
        for number, golden in enumerate(self.frames, start=1):
            try:
                frame = decode_picture(golden.picture, f"of golden frame {number}")
                (result,) = scorer.score_prepared([frame])
            except DataError as error:
                raise ModelFileError(f"golden frame {number} cannot be scored: {error}") from error
            pairs = {
                "score": (golden.score, result.score),
                "map maximum": (golden.map_maximum, float(result.anomaly_map.max())),
            }
            for name, (expected, got) in pairs.items():
                # Written so that NaN fails.
                if not abs(got - expected) <= self.tolerance * max(abs(expected), floor):
                    raise ModelFileError(
                        f"golden frame {number} has the {name} {got:.6g} on this device, and had "
                        f"{expected:.6g} at the export ({self.tolerance:.1%} may differ): export "
                        "again, for this device's --target"
                    )

    def to_metadata(self) -> dict[str, str]:
        """Return the entry of the model file. Its alphabet has no slash, as every text there."""
        frames = [
            {
                "picture": base64.urlsafe_b64encode(frame.picture).decode(),
                "score": frame.score,
                "map_maximum": frame.map_maximum,
            }
            for frame in self.frames
        ]
        document = {"tolerance": self.tolerance, "frames": frames}
        return {GOLDEN_KEY: json.dumps(document, allow_nan=False)}

    @classmethod
    def from_metadata(cls, text: str) -> "Golden":
        """Read the entry of a model file; the pictures are decoded when they are needed.

        Raises:
            ModelFileError: it is damaged, or says what cannot be.
        """
        try:
            document = Document.parse(text)
            entries = document.objects("frames", MOST_FRAMES)
            return cls(
                frames=tuple(_frame(entry) for entry in entries),
                tolerance=document.number("tolerance", 0, 1),
            )
        except (ValueError, RecursionError) as error:
            raise ModelFileError(
                f"the metadata '{GOLDEN_KEY}' of the model file is damaged ({error}): copy the "
                "file again or export the run again"
            ) from error


def _frame(entry: Document) -> GoldenFrame:
    return GoldenFrame(
        picture=entry.data("picture"),
        score=entry.number("score"),
        map_maximum=entry.number("map_maximum"),
    )


def _as_png(frame: Frame) -> bytes:
    _, data = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return bytes(data)
