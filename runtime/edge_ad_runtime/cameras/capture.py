"""Open OpenCV captures without their noise on stderr and with settings that OpenCV hides."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2

# OpenCV takes these settings from the environment of the whole process, at the time of opening.
_LOCK = threading.Lock()
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def open_capture(source: int | str, backend: int, settings: Sequence[int] = ()) -> cv2.VideoCapture:
    """Return an OpenCV capture; ask its `isOpened`.

    Args:
        source: index, device path, file or URL.
        backend: one of `cv2.CAP_*`.
        settings: property, value, property, value... that must hold while opening already.
    """
    with _LOCK, _quiet_opencv(), _rtsp_over_tcp():
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
def _rtsp_over_tcp() -> Iterator[None]:
    """Ask FFmpeg for TCP: lost UDP packets are grey blocks, and grey blocks are false alarms.

    Servers that know UDP only get it, after they have refused TCP. Options that the user has set in
    the environment win.
    """
    if _FFMPEG_OPTIONS in os.environ:
        yield
        return
    os.environ[_FFMPEG_OPTIONS] = "rtsp_flags;prefer_tcp"
    try:
        yield
    finally:
        del os.environ[_FFMPEG_OPTIONS]
