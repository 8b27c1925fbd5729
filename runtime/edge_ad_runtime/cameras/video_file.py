"""A video file as a source: every frame once, at full speed."""

from pathlib import Path

import cv2
import numpy as np

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource
from edge_ad_runtime.cameras.capture import open_capture
from edge_ad_runtime.errors import DataError


class VideoFile(FrameSource):
    """A file that FFmpeg can decode."""

    live = False

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            DataError: it cannot be decoded.
        """
        self.name = str(path)
        self._capture = open_capture(self.name, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise DataError(
                f"the file {path} is neither a picture nor a video that can be decoded: "
                "convert it, for example to MP4 with H.264"
            )
        self._promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._next = 0
        self._complained = False

    def read(self) -> CapturedFrame | None:
        """Decode the next frame; None at the end.

        Raises:
            DataError: the file ended well before the number of frames that it announces.
        """
        decoded, frame = self._capture.read()
        if not decoded:
            self._check_length()
            return None
        number = self._next
        self._next += 1
        return CapturedFrame(number=number, frame=np.asarray(frame, dtype=np.uint8))

    def close(self) -> None:
        """Release the decoder."""
        self._capture.release()

    def _check_length(self) -> None:
        """FFmpeg passes over damage in silence, so the number of frames is what shows it.

        Some containers only allow an estimate of the number, hence the tolerance of 1 %.
        """
        missing = self._promised - self._next
        if self._complained or missing < max(2, 0.01 * self._promised):
            return
        self._complained = True
        raise DataError(
            f"the video {self.name} announces {self._promised} frames, only {self._next} could be "
            "decoded: it is cut off or damaged, copy it again"
        )
