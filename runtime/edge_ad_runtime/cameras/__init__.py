"""Where frames come from: pictures, video files, cameras, network streams."""

import glob
import re
from pathlib import Path

from edge_ad_runtime.cameras.base import CameraSettings, CapturedFrame, FakeCamera, FrameSource
from edge_ad_runtime.cameras.folder import PictureFiles, WatchedFolder
from edge_ad_runtime.cameras.opencv import VideoFile, open_device, open_pipeline, open_url
from edge_ad_runtime.cameras.plugins import find_plugin
from edge_ad_runtime.errors import CameraError, ConfigError, DataError, redact
from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES, list_pictures, no_pictures

__all__ = [
    "CameraSettings",
    "CapturedFrame",
    "FakeCamera",
    "FrameSource",
    "PictureFiles",
    "WatchedFolder",
    "check_source",
    "open_source",
]

_URL = re.compile(r"([a-z][a-z0-9+.-]+):([/\\]+)", re.IGNORECASE)
_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
_HIGHEST_INDEX = 9999
_LONGEST = 4096


def check_source(spec: str) -> None:
    """Refuse what can be seen to be wrong without opening it.

    Raises:
        ConfigError: the text is empty, far too long or holds a NUL, or the index is too high.
    """
    if not spec.strip() or "\0" in spec or len(spec) > _LONGEST:
        raise ConfigError(
            "expected a camera index, device, file, folder, glob or URL of 1 to "
            f"{_LONGEST} characters without NUL, got {redact(spec[:60])!r}"
        )
    if re.fullmatch("[0-9]+", spec) and (len(spec) > 9 or int(spec) > _HIGHEST_INDEX):
        raise ConfigError(
            f"expected a camera index from 0 to {_HIGHEST_INDEX}, got {spec[:30]}: "
            "`ls /dev/video*` lists the cameras"
        )


def open_source(
    spec: str | int | Path,
    settings: CameraSettings = CameraSettings(),  # noqa: B008  (frozen)
    *,
    watch: bool = False,
) -> FrameSource:
    """Open a source of frames by what the user wrote.

    Args:
        spec: a camera index (`0`), a device path (`/dev/video0`), a video file, a picture, a folder
            of pictures, a glob (`parts/*.png`), a URL (`rtsp://...`, `http://...`), a GStreamer
            pipeline (`nvarguscamerasrc ! ... ! appsink`), or `name:...` of a plug-in.
        settings: size, frame rate and timeouts of a camera.
        watch: of a folder, the pictures that arrive from now on, without end.

    Raises:
        CameraError: the camera or URL cannot be opened.
        DataError: the file, folder or glob cannot be used.
    """
    spec = str(spec)
    check_source(spec)
    url = _URL.match(spec)
    if watch:
        if url or re.fullmatch("[0-9]+", spec) or spec.startswith("/dev/"):
            raise DataError(
                f"expected a folder to watch, got {redact(spec)}: --watch counts for every camera; "
                "in a configuration file, each camera has a `watch` of its own"
            )
        return WatchedFolder(Path(spec))
    if re.fullmatch("[0-9]+", spec):
        return open_device(int(spec), settings)
    if re.search(r"\s!\s", spec):
        return open_pipeline(spec)
    if url and url[1].lower() in _SCHEMES and url[2] == "//":
        return open_url(spec, settings)
    plugin = find_plugin(spec)
    if plugin is not None:
        return plugin()
    if url:
        raise CameraError(
            f"expected a URL such as rtsp://host/stream (of {', '.join(_SCHEMES)}), got "
            f"{redact(spec)}: check its beginning; a file is given by its path"
        )
    if spec.startswith("/dev/"):
        return open_device(spec, settings)
    return _open_path(spec)


def _open_path(spec: str) -> FrameSource:
    path = Path(spec)
    if path.is_dir():
        pictures = list_pictures(path)
        if not pictures:
            raise no_pictures(path)
        return PictureFiles(pictures, name=spec)
    if path.is_file():
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return PictureFiles([path], name=spec)
        return VideoFile(path)
    if glob.has_magic(spec):
        matches = sorted(Path(match) for match in glob.glob(spec, recursive=True))
        pictures = [match for match in matches if match.suffix.lower() in PICTURE_SUFFIXES]
        return PictureFiles(pictures, name=redact(spec))
    raise DataError(
        "expected a camera index, device, file, folder, glob or URL, found nothing at "
        f"{redact(spec)!r}: "
        "check the path"
    )
