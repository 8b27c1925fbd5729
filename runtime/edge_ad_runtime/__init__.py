"""The device side of edge-ad: a model file and frames in, verdicts out. No torch, no onnx.

    from edge_ad_runtime import Scorer, read_frame

    scorer = Scorer("cable-padim.onnx")
    result = scorer.score(read_frame(Path("part.png")))
    print(result.anomalous, result.score)

The names below are loaded on first use: importing this package costs milliseconds and needs neither
OpenCV nor ONNX Runtime, so that a command can say which extra is missing.
"""

import importlib
import os
from typing import TYPE_CHECKING

from edge_ad_runtime.errors import (
    CameraError,
    ConfigError,
    DataError,
    DeviceError,
    EdgeAdError,
    ExportError,
    FrameError,
    MissingExtraError,
    ModelFileError,
    NotFittedError,
    StuckError,
)

if TYPE_CHECKING:
    from edge_ad_runtime.cameras import CapturedFrame, FakeCamera, FrameSource, open_source
    from edge_ad_runtime.cameras.reader import Reader
    from edge_ad_runtime.model.image import Frame, Preprocessing
    from edge_ad_runtime.model.info import ModelInfo
    from edge_ad_runtime.model.overlay import draw_overlay, heat_map
    from edge_ad_runtime.model.picture_file import list_pictures, read_frame
    from edge_ad_runtime.model.result import Region, Result
    from edge_ad_runtime.model.scorer import Scorer
    from edge_ad_runtime.outputs import JsonLines, OverlayFolder
    from edge_ad_runtime.stream.config import StreamConfig, read_config
    from edge_ad_runtime.stream.loops import StreamSummary
    from edge_ad_runtime.stream.stream import Stream, run_stream

# ONNX Runtime reads this when it is imported. Without it, 1.31 and newer write an identity of the
# device and a database of events into the user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "CameraError",
    "CapturedFrame",
    "ConfigError",
    "DataError",
    "DeviceError",
    "EdgeAdError",
    "ExportError",
    "FakeCamera",
    "Frame",
    "FrameError",
    "FrameSource",
    "JsonLines",
    "MissingExtraError",
    "ModelFileError",
    "ModelInfo",
    "NotFittedError",
    "OverlayFolder",
    "Preprocessing",
    "Reader",
    "Region",
    "Result",
    "Scorer",
    "Stream",
    "StreamConfig",
    "StreamSummary",
    "StuckError",
    "draw_overlay",
    "heat_map",
    "list_pictures",
    "open_source",
    "read_config",
    "read_frame",
    "run_stream",
]

_MODULES = {
    "model.image": ("Frame", "Preprocessing"),
    "model.info": ("ModelInfo",),
    "outputs": ("JsonLines", "OverlayFolder"),
    "model.overlay": ("draw_overlay", "heat_map"),
    "cameras.reader": ("Reader",),
    "model.picture_file": ("list_pictures", "read_frame"),
    "model.result": ("Region", "Result"),
    "model.scorer": ("Scorer",),
    "cameras": ("CapturedFrame", "FakeCamera", "FrameSource", "open_source"),
    "stream.stream": ("Stream", "run_stream"),
    "stream.config": ("StreamConfig", "read_config"),
    "stream.loops": ("StreamSummary",),
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, on first use."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"edge_ad_runtime.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, so that they are completed before they are loaded."""
    return sorted({*globals(), *__all__})
