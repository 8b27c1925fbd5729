"""The device side of edge-ad: a model file and frames in, verdicts out. No torch, no onnx.

    from edge_ad_runtime import Scorer, read_frame

    scorer = Scorer("cable-padim.onnx")
    result = scorer.score(read_frame(Path("part.png")))
    print(result.anomalous, result.score)

The names below are loaded on first use: importing this package costs milliseconds and needs neither
OpenCV nor ONNX Runtime, so that a command can say which extra is missing.
"""

import importlib
from typing import TYPE_CHECKING

from edge_ad_runtime.errors import (
    CameraError,
    DataError,
    DeviceError,
    EdgeAdError,
    ExportError,
    MissingExtraError,
    ModelFileError,
    NotFittedError,
)

if TYPE_CHECKING:
    from edge_ad_runtime.image import Frame, Preprocessing, list_pictures, read_frame
    from edge_ad_runtime.info import ModelInfo
    from edge_ad_runtime.outputs import JsonLines, OverlayFolder
    from edge_ad_runtime.overlay import draw_overlay, heat_map
    from edge_ad_runtime.reader import Reader
    from edge_ad_runtime.result import Result
    from edge_ad_runtime.scorer import Scorer
    from edge_ad_runtime.sources import CapturedFrame, FakeCamera, FrameSource, open_source
    from edge_ad_runtime.stream import run_stream
    from edge_ad_runtime.summary import StreamSummary

__all__ = [
    "CameraError",
    "CapturedFrame",
    "DataError",
    "DeviceError",
    "EdgeAdError",
    "ExportError",
    "FakeCamera",
    "Frame",
    "FrameSource",
    "JsonLines",
    "MissingExtraError",
    "ModelFileError",
    "ModelInfo",
    "NotFittedError",
    "OverlayFolder",
    "Preprocessing",
    "Reader",
    "Result",
    "Scorer",
    "StreamSummary",
    "draw_overlay",
    "heat_map",
    "list_pictures",
    "open_source",
    "read_frame",
    "run_stream",
]

_MODULES = {
    "image": ("Frame", "Preprocessing", "list_pictures", "read_frame"),
    "info": ("ModelInfo",),
    "outputs": ("JsonLines", "OverlayFolder"),
    "overlay": ("draw_overlay", "heat_map"),
    "reader": ("Reader",),
    "result": ("Result",),
    "scorer": ("Scorer",),
    "sources": ("CapturedFrame", "FakeCamera", "FrameSource", "open_source"),
    "stream": ("run_stream",),
    "summary": ("StreamSummary",),
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, on first use."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"edge_ad_runtime.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
