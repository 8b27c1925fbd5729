"""Everything that OpenCV reads: V4L2 devices, network streams, GStreamer pipelines, video files."""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import cv2
import numpy as np

from edge_ad_runtime.cameras.base import CameraSettings, CapturedFrame, FrameSource
from edge_ad_runtime.cameras.mjpeg import open_mjpeg
from edge_ad_runtime.errors import CameraError, DataError, FrameError, counted, redact
from edge_ad_runtime.model.image import Frame

logger = logging.getLogger(__name__)

_USER, _PASSWORD = "EDGE_AD_CAMERA_USER", "EDGE_AD_CAMERA_PASSWORD"
_V4L2_MANUAL_EXPOSURE = 1

_FRAME_TYPE = getattr(cv2, "CAP_PROP_FRAME_TYPE", 69)
"""Older builds, such as a Jetson's, do not know it and answer 0."""

_MOST_DAMAGED = 100
"""Frames of a video file that may be damaged in a row before its end counts as reached."""

_PREDICTED = (ord("P"), ord("B"))
_KEY_FRAME_SECONDS = 5.0
"""Cameras send a whole frame every second or two; some never do and refresh it piece by piece."""

# OpenCV takes these settings from the environment of the whole process, at the time of opening.
_OPENING = threading.Lock()
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

_TCP = "rtsp_flags;prefer_tcp"
"""Lost UDP packets are grey blocks, and grey blocks are false alarms. Servers that support only UDP
get it after they have refused TCP."""

_VIDEOS_ONLY = (
    "format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,"
    "flv,ogg,asf,ivf,hls,dash,aac,mp3,ac3,webvtt"
)
"""Over HTTP no rows of pictures: FFmpeg would believe any length that the server states for one."""


class Camera(FrameSource):
    """A live camera behind an OpenCV capture that is already open."""

    live = True

    def __init__(
        self, capture: cv2.VideoCapture, *, name: str, key_frame_timeout: float = 0.0
    ) -> None:
        """Take over the capture.

        Args:
            capture: open.
            name: the camera's name in results.
            key_frame_timeout: seconds for which a compressed stream, joined in the middle, may send
                frames that build on ones which were never received. They are grey and smeared, and
                are passed over until the first whole one.
        """
        self.name = name
        self._capture = capture
        self._next = 0
        self._key_frame_deadline = monotonic() + key_frame_timeout if key_frame_timeout else None

    def read(self) -> CapturedFrame | None:
        """Wait for the camera's next frame.

        Raises:
            FrameError: this frame cannot be decoded.
            CameraError: the camera no longer delivers frames.
        """
        try:
            delivered, frame = self._capture.read()
            while delivered and self._builds_on_nothing():
                delivered, frame = self._capture.read()
        except cv2.error as error:
            raise FrameError(
                f"the camera {self.name} delivered a frame that cannot be decoded ({error.err}): "
                "check its cable and pixel format"
            ) from error
        if not delivered:
            raise CameraError(
                f"the camera {self.name} stopped after {counted(self._next, 'frame')}: "
                "check its cable, power and network"
            )
        number = self._next
        self._next += 1
        return CapturedFrame(number=number, frame=np.asarray(frame, dtype=np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()

    def _builds_on_nothing(self) -> bool:
        """Whether this frame lacks the one that it was predicted from."""
        if self._key_frame_deadline is None:
            return False
        predicted = self._capture.get(_FRAME_TYPE) in _PREDICTED
        if not predicted or monotonic() > self._key_frame_deadline:
            self._key_frame_deadline = None
        return self._key_frame_deadline is not None


class VideoFile(FrameSource):
    """A video file that FFmpeg can decode: every frame once, at full speed."""

    live = False

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            DataError: it cannot be decoded.
        """
        self.name = str(path)
        self._capture = _open_capture(self.name, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise DataError(
                f"the file {path} is neither a picture nor a video that can be decoded: "
                "convert it, for example to MP4 with H.264"
            )
        self._promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._next = self._decoded = 0
        self._behind_damage: Frame | None = None
        self._complained = False

    def read(self) -> CapturedFrame | None:
        """Decode the next frame; None at the end.

        Raises:
            FrameError: frames are damaged, or the file ended well before the number of frames that
                it announces; the next call goes on behind them.
        """
        frame, self._behind_damage = self._behind_damage, None
        if frame is None:
            frame = self._decode()
        if frame is None:
            self._pass_over_damage()
            self._check_length()
            return None
        number = self._next
        self._next += 1
        self._decoded += 1
        return CapturedFrame(number=number, frame=frame)

    def close(self) -> None:
        """Release the decoder."""
        self._capture.release()

    def _decode(self) -> Frame | None:
        decoded, frame = self._capture.read()
        return np.asarray(frame, dtype=np.uint8) if decoded else None

    def _pass_over_damage(self) -> None:
        """Look for a frame behind one that could not be decoded.

        Raises:
            FrameError: there is one.
        """
        left = self._promised - self._next if self._promised > 0 else _MOST_DAMAGED
        for damaged in range(1, min(left, _MOST_DAMAGED)):
            frame = self._decode()
            if frame is not None:
                first, self._next = self._next, self._next + damaged
                self._behind_damage = frame
                raise FrameError(
                    f"{counted(damaged, 'frame')} of the video {self.name} cannot be decoded, from "
                    f"number {first} on: it is damaged, copy it again"
                )

    def _check_length(self) -> None:
        """Compare the number of frames: FFmpeg skips damaged ones silently.

        Some containers only allow an estimate of the number, hence the tolerance of 1 %.
        """
        missing = self._promised - self._next
        if self._complained or missing < max(2, 0.01 * self._promised):
            return
        self._complained = True
        raise FrameError(
            f"the video {self.name} announces {self._promised} frames, only {self._decoded} could "
            "be decoded: it is cut off or damaged, copy it again"
        )


def open_device(device: int | str, settings: CameraSettings = CameraSettings()) -> Camera:  # noqa: B008
    """Open a camera of this machine by index or by path such as `/dev/video0`.

    Raises:
        CameraError: it is not there, or is in use.
    """
    # Without a named backend OpenCV tries several, one of which may take an index for a file.
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = _open_capture(device, backend)
    if not capture.isOpened():
        raise CameraError(
            f"cannot open the camera {device}: check that it is plugged in, that no other program "
            "uses it and that you may read it (group 'video'); `ls /dev/video*` lists them"
        )
    _set_up(capture, str(device), settings)
    return Camera(capture, name=str(device))


def open_url(url: str, settings: CameraSettings = CameraSettings()) -> FrameSource:  # noqa: B008
    """Open a network camera: MJPEG over HTTP, or whatever FFmpeg reads, RTSP over TCP.

    User and password come from the URL or, where it has none, from the environment variables
    `EDGE_AD_CAMERA_USER` and `EDGE_AD_CAMERA_PASSWORD`.

    Raises:
        CameraError: it does not answer in time, or sends no video.
    """
    name = redact(url)
    url = _with_credentials(url)
    if url.lower().startswith("http"):
        camera = open_mjpeg(url, settings)
        if camera is not None:
            return camera
    # These must be given at opening: set later they have no effect, and OpenCV waits 30 seconds.
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(settings.open_timeout * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(settings.read_timeout * 1000),
    ]
    capture = _open_capture(url, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise CameraError(
            f"cannot open the camera {name}: it did not answer with a video within "
            f"{settings.open_timeout:g} s, check address, network, user and password"
        )
    return Camera(capture, name=name, key_frame_timeout=_KEY_FRAME_SECONDS)


def open_pipeline(pipeline: str) -> Camera:
    """Open a GStreamer pipeline that ends in an appsink: CSI cameras, hardware decoders.

    Raises:
        CameraError: this OpenCV was built without GStreamer, or the pipeline does not start.
    """
    name = redact(pipeline)
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise CameraError(
            f"the camera {name} is a GStreamer pipeline, but this OpenCV was built without "
            "GStreamer, as all builds from pip are: use the OpenCV of the Jetson's or the "
            "distribution's packages (python3-opencv)"
        )
    capture = _open_capture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise CameraError(
            f"cannot start the GStreamer pipeline {name}: try it with gst-launch-1.0, "
            "with fakesink in place of appsink"
        )
    return Camera(capture, name=name)


def _open_capture(
    source: int | str, backend: int, settings: Sequence[int] = ()
) -> cv2.VideoCapture:
    """Return an OpenCV capture, which may have failed to open (`isOpened`).

    Args:
        source: index, device path, file or URL.
        backend: one of `cv2.CAP_*`.
        settings: property, value, property, value... for the backends that need them at opening.
    """
    web = isinstance(source, str) and source.lower().startswith("http")
    with _OPENING, _quiet_opencv(), _ffmpeg_options(f"{_TCP}|{_VIDEOS_ONLY}" if web else _TCP):
        return cv2.VideoCapture(source, backend, settings)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Silence OpenCV while opening: the caller says in one sentence what is wrong."""
    # Read once, when FFmpeg is first used. -8 is its AV_LOG_QUIET.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """Give FFmpeg these options, unless the user has set others in the environment."""
    if _FFMPEG_OPTIONS in os.environ:
        yield
        return
    os.environ[_FFMPEG_OPTIONS] = options
    try:
        yield
    finally:
        del os.environ[_FFMPEG_OPTIONS]


def _set_up(capture: cv2.VideoCapture, name: str, settings: CameraSettings) -> None:
    """Pass the user's settings to the driver; log those that it does not accept."""
    # The driver's queue holds old frames; not every driver lets it be shortened.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if settings.fourcc is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.fourcc))
    if settings.exposure is not None:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _V4L2_MANUAL_EXPOSURE)
    wishes = {
        "width": (cv2.CAP_PROP_FRAME_WIDTH, settings.width),
        "height": (cv2.CAP_PROP_FRAME_HEIGHT, settings.height),
        "fps": (cv2.CAP_PROP_FPS, settings.fps),
        "exposure": (cv2.CAP_PROP_EXPOSURE, settings.exposure),
    }
    for wish, (key, value) in wishes.items():
        if value is not None and not (capture.set(key, value) and capture.get(key) == value):
            logger.warning(
                "the camera %s does not accept %s = %g: it keeps %g",
                *(name, wish, value, capture.get(key)),
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
