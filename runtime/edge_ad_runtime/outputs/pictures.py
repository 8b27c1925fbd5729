"""Where verdicts go: JSON lines, and pictures of what is anomalous."""

import json
from pathlib import Path
from typing import Protocol, TextIO

import cv2

from edge_ad_runtime.files import make_writable, write_whole
from edge_ad_runtime.info import ModelInfo
from edge_ad_runtime.overlay import draw_overlay
from edge_ad_runtime.result import Result
from edge_ad_runtime.sources import CapturedFrame

_JPEG_QUALITY = 90


class Output(Protocol):
    """Takes every verdict of a stream."""

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Put out one verdict.

        Raises:
            OSError: it could not be put out.
        """


class JsonLines:
    """One JSON object a line, flushed line by line."""

    def __init__(self, file: TextIO, *, camera: str) -> None:
        """Write to an open text file; `camera` stands in every line."""
        self._file = file
        self._camera = camera

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Write one line.

        Raises:
            OSError: the file takes no more; BrokenPipeError when its reader has gone.
        """
        line: dict[str, object] = {"frame": captured.number, "camera": self._camera}
        if captured.path is not None:
            line["path"] = str(captured.path)
        self._file.write(json.dumps(line | result.fields(captured.timestamp)) + "\n")
        self._file.flush()


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
