"""Pictures of what was scored, under their heat map."""

import errno
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.config_table import setting
from edge_ad_runtime.files import make_writable, write_whole
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.overlay import draw_overlay
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.retention import Limits, Retention

InfoOf = Callable[[str], ModelInfo]
"""Gives the model in use at a camera."""

_JPEG_QUALITY = 90
_RESERVE_BYTES = 64_000_000
_RESERVE_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Overlays in a folder; the oldest go when one of the limits is passed (None: no limit)."""

    folder: Path = setting(expected="the path of a folder")
    keep: str = setting("anomalous", choices=("good", "anomalous", "all"))
    max_count: int | None = setting(None, low=1, high=10**9)
    max_days: float | None = setting(None, low=0.001, high=100_000)
    max_mb: float | None = setting(None, low=0.001, high=1e9)


class OverlayFolder:
    """A JPEG of frames: heat map, outline, score.

    Pictures leave a tenth of the disk, at most 64 MB, to the verdicts: a full disk costs pictures
    first.
    """

    def __init__(
        self,
        folder: Path,
        info: ModelInfo | InfoOf,
        *,
        keep: str = "anomalous",
        limits: Limits = Limits(),  # noqa: B008  (frozen)
        by_camera: bool = False,
    ) -> None:
        """Create the folder.

        Args:
            folder: where the pictures go.
            info: of the model, or a function from the camera's name to it.
            keep: `good`, `anomalous` or `all`.
            limits: when the oldest ones are deleted.
            by_camera: one subfolder for each camera.

        Raises:
            DataError: it cannot be written to.
        """
        make_writable(folder)
        self._folder = folder
        self._info_of: InfoOf = (lambda camera: info) if isinstance(info, ModelInfo) else info
        self._keep = keep
        self._by_camera = by_camera
        self._retention = Retention(folder, limits)

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Write the picture if such verdicts are kept.

        Raises:
            OSError: the disk is full, or the folder has gone.
        """
        verdict = "anomalous" if result.anomalous else "good"
        if self._keep not in (verdict, "all"):
            return
        folder = self._folder
        if self._by_camera:
            folder = folder / re.sub(r"[^\w.-]+", "_", captured.camera)
            folder.mkdir(exist_ok=True)
        self._leave_room()
        picture = draw_overlay(captured.frame, result, self._info_of(captured.camera))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        path = folder / _file_name(captured)
        write_whole(path, data.tobytes())
        self._retention.add(path, data.nbytes)

    def _leave_room(self) -> None:
        usage = shutil.disk_usage(self._folder)
        if usage.free < min(_RESERVE_BYTES, _RESERVE_SHARE * usage.total):
            raise OSError(
                errno.ENOSPC, "the disk is nearly full, the rest is for verdicts", str(self._folder)
            )


def _file_name(captured: CapturedFrame) -> str:
    """Name pictures after their file; others after the time, so that no later run replaces them."""
    if captured.path is not None:
        return f"{captured.number:06d}-{captured.path.stem}.jpg"
    return f"{captured.timestamp:%Y%m%dT%H%M%S%f}Z-{captured.number:06d}.jpg"
