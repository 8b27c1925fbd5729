"""Pictures of what is anomalous."""

from pathlib import Path

import cv2

from edge_ad_runtime.files import make_writable, write_whole
from edge_ad_runtime.info import ModelInfo
from edge_ad_runtime.overlay import draw_overlay
from edge_ad_runtime.result import Result
from edge_ad_runtime.sources import CapturedFrame

_JPEG_QUALITY = 90


class OverlayFolder:
    """A JPEG of every anomalous frame: heat map, outline, score."""

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        """Create the folder.

        Raises:
            DataError: it cannot be written to.
        """
        make_writable(folder)
        self._folder = folder
        self._info = info

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Write the picture if the verdict is anomalous.

        Raises:
            OSError: the disk is full, or the folder has gone.
        """
        if result.anomalous:
            picture = draw_overlay(captured.frame, result, self._info)
            settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            _, data = cv2.imencode(".jpg", picture, settings)
            write_whole(self._folder / _file_name(captured), data.tobytes())


def _file_name(captured: CapturedFrame) -> str:
    """Name pictures after their file; others after the time, so that no later run replaces them."""
    if captured.path is not None:
        return f"{captured.number:06d}-{captured.path.stem}.jpg"
    return f"{captured.timestamp:%Y%m%dT%H%M%S%f}Z-{captured.number:06d}.jpg"
