"""Live cameras: V4L2 devices and network streams."""

import sys

import cv2
import numpy as np

from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.sources.base import CapturedFrame, FrameSource
from edge_ad_runtime.sources.capture import open_capture
from edge_ad_runtime.sources.redact import redact

_OPEN_TIMEOUT_MS = 5000
_READ_TIMEOUT_MS = 5000


class Camera(FrameSource):
    """A camera behind an OpenCV capture that is already open."""

    live = True

    def __init__(self, capture: cv2.VideoCapture, *, name: str) -> None:
        """Take over the capture."""
        self.name = name
        self._capture = capture
        self._next = 0

    def read(self) -> CapturedFrame | None:
        """Wait for the camera's next frame.

        Raises:
            DataError: this frame cannot be decoded.
            CameraError: it delivers no more.
        """
        try:
            delivered, frame = self._capture.read()
        except cv2.error as error:
            raise DataError(
                f"the camera {self.name} delivered what cannot be decoded ({error.err}): "
                "check its cable and format"
            ) from error
        if not delivered:
            raise CameraError(
                f"the camera {self.name} stopped after {self._next} frames: "
                "check its cable, power and network"
            )
        number = self._next
        self._next += 1
        return CapturedFrame(number=number, frame=np.asarray(frame, dtype=np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def open_device(device: int | str) -> Camera:
    """Open a camera of this machine by index or by path such as `/dev/video0`.

    Raises:
        CameraError: it is not there, or is in use.
    """
    # Without a backend named, OpenCV tries several, one of which may take an index for a file.
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = open_capture(device, backend)
    if not capture.isOpened():
        raise CameraError(
            f"cannot open the camera {device}: check that it is plugged in, that no other program "
            "uses it and that you may read it (group 'video'); `ls /dev/video*` lists them"
        )
    # The driver's queue holds old frames; not every driver obeys.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return Camera(capture, name=str(device))


def open_url(url: str) -> Camera:
    """Open a network camera, RTSP over TCP.

    Raises:
        CameraError: it does not answer within five seconds, or sends no video.
    """
    # Set later they have no effect, and OpenCV waits for 30 seconds.
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        _READ_TIMEOUT_MS,
    ]
    capture = open_capture(url, cv2.CAP_FFMPEG, timeouts)
    name = redact(url)
    if not capture.isOpened():
        raise CameraError(
            f"cannot open the camera {name}: it did not answer with a video within "
            f"{_OPEN_TIMEOUT_MS // 1000} s, check address, network, user and password"
        )
    return Camera(capture, name=name)
