"""Pictures of what was scored, under their heat map; the oldest ones are deleted."""

import errno
import re
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.config_table import inline, setting
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import make_writable, own_path, remove_leftovers, write_whole
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.overlay import draw_overlay, encode_jpeg
from edge_ad_runtime.model.result import Result, time_in_names
from edge_ad_runtime.outputs.base import Output

InfoOf = Callable[[str], ModelInfo]
"""Gives the model in use at a camera."""

_JPEG_QUALITY = 90
_RESERVE_BYTES = 64_000_000
_RESERVE_SHARE = 0.1
_LONGEST_NAME = 150
"""In bytes; file systems allow 255, of which number and ending need some."""
_OURS = re.compile(r"([0-9]{6,}-.+|[0-9]{8}T[0-9]{12}Z-[0-9]{6,})\.jpg", re.DOTALL)
"""What `OverlayFolder` calls its files, also after a picture with a line break in its name.

Nothing else is ever deleted."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """When the oldest pictures go: beyond a count, an age or a total size; None: no limit."""

    max_count: int | None = setting(None, low=1, high=10**9)
    max_days: float | None = setting(None, low=0.001, high=100_000)
    max_mb: float | None = setting(None, low=0.001, high=10**9)


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Overlays in a folder: `good`, `anomalous` or `all`, and how long they are kept."""

    folder: Path = setting(expected="the path of a folder")
    keep: str = setting("anomalous", choices=("good", "anomalous", "all"))
    retention: Retention = inline(Retention)


class OverlayFolder(Output):
    """A JPEG of frames: heat map, outline, score.

    Pictures leave a tenth of the disk, at most 64 MB, to the verdicts: a full disk costs pictures
    first.
    """

    name = "pictures"

    def __init__(
        self,
        folder: Path | str,
        info: ModelInfo | InfoOf,
        *,
        keep: str = "anomalous",
        retention: Retention = Retention(),
        by_camera: bool = False,
        replace: bool = False,
    ) -> None:
        """Create the folder.

        Args:
            folder: where the pictures go.
            info: of the model, or a function from the camera's name to it.
            keep: `good`, `anomalous` or `all`.
            retention: when the oldest ones are deleted.
            by_camera: one subfolder for each camera.
            replace: a picture of an earlier run with the same name; otherwise both are kept.

        Raises:
            DataError: it cannot be read or written.
        """
        folder = Path(folder)
        try:
            folder = own_path(folder)
            make_writable(folder)
            for subfolder in _subfolders(folder):
                remove_leftovers(subfolder)
            self._kept = KeptPictures(folder, retention)
        except OSError as error:
            raise DataError(
                f"cannot read the folder of pictures {folder}: {error.strerror}: choose another "
                "one or change its permissions"
            ) from error
        self._folder = folder
        self._info_of: InfoOf = (lambda camera: info) if isinstance(info, ModelInfo) else info
        self._keep = keep
        self._by_camera = by_camera
        self._replace = replace

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
            folder = own_path(folder / folder_name(captured.camera))
            folder.mkdir(exist_ok=True)
        self._leave_room()
        picture = draw_overlay(captured.frame, result, self._info_of(captured.camera))
        data = encode_jpeg(picture, quality=_JPEG_QUALITY)
        self._kept.add(self._put(folder, _stem(captured), data), len(data))

    def _put(self, folder: Path, stem: str, data: bytes) -> Path:
        """Write a new file: STEM.jpg, or STEM-2.jpg and so on where that is there already."""
        for number in count(1):
            path = folder / (f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg")
            try:
                write_whole(path, data, replace=self._replace)
            except FileExistsError:
                continue
            break
        return path

    def _leave_room(self) -> None:
        usage = shutil.disk_usage(self._folder)
        if usage.free < min(_RESERVE_BYTES, _RESERVE_SHARE * usage.total):
            raise OSError(
                errno.ENOSPC, "the disk is nearly full, the rest is for verdicts", str(self._folder)
            )


class KeptPictures:
    """The pictures of a folder and its subfolders, the oldest of which are deleted."""

    def __init__(
        self, folder: Path, retention: Retention, *, now: Callable[[], float] = time.time
    ) -> None:
        """List the pictures that earlier runs left.

        Args:
            folder: where they lie.
            retention: what may remain.
            now: the time of day in seconds since 1970, as in the files' times.
        """
        self._retention = retention
        self._now = now
        found = [] if retention == Retention() else sorted(_list_ours(folder))
        self._kept = deque(found)
        self._bytes = sum(size for _, _, size in found)

    def add(self, path: Path, size: int) -> None:
        """Note a new picture and delete the oldest ones beyond the limits.

        Raises:
            OSError: one cannot be deleted.
        """
        if self._retention == Retention():
            return
        self._kept.append((self._now(), path, size))
        self._bytes += size
        # The newest stays, whatever the limits.
        while len(self._kept) > 1 and self._is_too_much():
            _, oldest, oldest_size = self._kept.popleft()
            self._bytes -= oldest_size
            oldest.unlink(missing_ok=True)

    def _is_too_much(self) -> bool:
        limits = self._retention
        if limits.max_count is not None and len(self._kept) > limits.max_count:
            return True
        if limits.max_mb is not None and self._bytes > limits.max_mb * 1e6:
            return True
        if limits.max_days is None:
            return False
        return self._now() - self._kept[0][0] > limits.max_days * 86_400


def folder_name(camera: str) -> str:
    """Return a camera's name as the name of one folder, which never leads out of the parent."""
    name = re.sub(r"[^\w.-]+", "_", camera)
    return _cut("_" * len(name) if set(name) <= {"."} else name) or "_"


def _stem(captured: CapturedFrame) -> str:
    """Name pictures after their file, and others after the time."""
    if captured.path is not None:
        return f"{captured.number:06d}-{_cut(captured.path.stem)}"
    return f"{time_in_names(captured.timestamp)}-{captured.number:06d}"


def _cut(name: str) -> str:
    data = name.encode(errors="surrogateescape")[:_LONGEST_NAME]
    return data.decode(errors="ignore") if len(data) == _LONGEST_NAME else name


def _subfolders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _list_ours(folder: Path) -> Iterator[tuple[float, Path, int]]:
    """Yield time, path and size of the pictures; links and what cannot be read are left out."""
    folders = (folder, *_subfolders(folder))
    for path in chain.from_iterable(each.glob("*.jpg") for each in folders):
        if not _OURS.fullmatch(path.name):
            continue
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield found.st_mtime, path, found.st_size
