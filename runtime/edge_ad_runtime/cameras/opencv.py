"""Live cameras: V4L2 devices, network streams, GStreamer pipelines."""

import logging
import os
import re
import sys
from urllib.parse import quote

import cv2
import numpy as np

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource
from edge_ad_runtime.cameras.capture import open_capture
from edge_ad_runtime.cameras.redact import redact
from edge_ad_runtime.cameras.settings import CameraSettings
from edge_ad_runtime.errors import CameraError, DataError

logger = logging.getLogger(__name__)

_USER, _PASSWORD = "EDGE_AD_CAMERA_USER", "EDGE_AD_CAMERA_PASSWORD"
_V4L2_MANUAL_EXPOSURE = 1


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


def open_device(device: int | str, settings: CameraSettings = CameraSettings()) -> Camera:  # noqa: B008
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
    _set_up(capture, str(device), settings)
    return Camera(capture, name=str(device))


def open_url(url: str, settings: CameraSettings = CameraSettings()) -> Camera:  # noqa: B008
    """Open a network camera, RTSP over TCP.

    User and password come from the URL or, where it has none, from the environment variables
    `EDGE_AD_CAMERA_USER` and `EDGE_AD_CAMERA_PASSWORD`.

    Raises:
        CameraError: it does not answer in time, or sends no video.
    """
    # Set later they have no effect, and OpenCV waits for 30 seconds.
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(settings.open_timeout * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(settings.read_timeout * 1000),
    ]
    capture = open_capture(_with_credentials(url), cv2.CAP_FFMPEG, timeouts)
    name = redact(url)
    if not capture.isOpened():
        raise CameraError(
            f"cannot open the camera {name}: it did not answer with a video within "
            f"{settings.open_timeout:g} s, check address, network, user and password"
        )
    return Camera(capture, name=name)


def open_pipeline(pipeline: str) -> Camera:
    """Open a GStreamer pipeline that ends in an appsink: CSI cameras, hardware decoders.

    Raises:
        CameraError: this OpenCV was built without GStreamer, or the pipeline does not start.
    """
    name = redact(pipeline)
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise CameraError(
            f"the camera {name} is a GStreamer pipeline, but this OpenCV was built without "
            "GStreamer, as all of those from pip are: use the OpenCV of the Jetson's or the "
            "distribution's packages (python3-opencv)"
        )
    capture = open_capture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise CameraError(
            f"cannot start the GStreamer pipeline {name}: try it with gst-launch-1.0, "
            "with fakesink in place of appsink"
        )
    return Camera(capture, name=name)


def _set_up(capture: cv2.VideoCapture, name: str, settings: CameraSettings) -> None:
    """Hand the user's wishes to the driver; those that it does not obey are logged."""
    # The driver's queue holds old frames; not every driver obeys.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if settings.fourcc is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    if settings.exposure is not None:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _V4L2_MANUAL_EXPOSURE)
    wishes = {
        cv2.CAP_PROP_FRAME_WIDTH: settings.width,
        cv2.CAP_PROP_FRAME_HEIGHT: settings.height,
        cv2.CAP_PROP_FPS: settings.fps,
        cv2.CAP_PROP_EXPOSURE: settings.exposure,
    }
    for key, value in wishes.items():
        if value is not None and not (capture.set(key, value) and capture.get(key) == value):
            logger.warning(
                "the camera %s does not take %g for property %d: it keeps %g",
                *(name, value, key, capture.get(key)),
            )


def _with_credentials(url: str) -> str:
    user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
    scheme, _, rest = url.partition("://")
    if user is None or "@" in rest.partition("/")[0]:
        return url
    secret = quote(user, safe="")
    if password is not None:
        secret += ":" + quote(password, safe="")
    return f"{scheme}://{secret}@{rest}"
