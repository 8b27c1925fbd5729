"""From a picture file to a frame, and from a frame to the model's input.

Training and the device both use this file, so that a score cannot change between them.
"""

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.picture_file import PICTURE_FORMATS, read_header

Frame = NDArray[np.uint8]
"""uint8, H x W x 3, BGR."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""File name endings, lower case, that count as pictures in a folder."""

LARGEST_PICTURE_BYTES = 2**29
"""Largest file, and largest decoded picture: 178 megapixels at 8 bits a channel."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The geometry between a frame and the model's input.

    Attributes:
        input_size: (height, width) of the result in pixels.
        resize: None: the whole frame is stretched to `input_size`. Otherwise the shorter side is
            brought to this many pixels first, and `input_size` is cut from the centre.
        in_graph: the model resizes by itself, so that frames go into it as they are.
    """

    input_size: tuple[int, int]
    resize: int | None = None
    in_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be made."""
        height, width = self.input_size
        if height < 32 or width < 32:
            raise DataError(
                f"expected an input size of at least 32x32 pixels, got {height}x{width}"
            )
        if self.resize is not None and self.resize < max(height, width):
            raise DataError(
                f"expected a resize of at least the crop, {max(height, width)} pixels, "
                f"got {self.resize}: raise --resize or lower --center-crop"
            )

    def apply(self, frame: Frame) -> Frame:
        """Return the frame as the model takes it: (h, w, 3), uint8, same channel order."""
        if self.in_graph:
            return frame
        height, width = self.input_size
        if self.resize is None:
            return _resize(frame, height, width)
        full_height, full_width = self._full_size(frame.shape[:2])
        full = _resize(frame, full_height, full_width)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        return np.ascontiguousarray(full[top : top + height, left : left + width])

    def apply_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a ground-truth mask (H, W) in the geometry of the input: (h, w), nearest pixel."""
        height, width = self.input_size
        pixels = mask.astype(np.uint8)
        if self.resize is None:
            return _nearest(pixels, height, width)
        full_height, full_width = self._full_size(mask.shape[:2])
        top, left = (full_height - height) // 2, (full_width - width) // 2
        full = _nearest(pixels, full_height, full_width)
        return np.ascontiguousarray(full[top : top + height, left : left + width])

    def map_to_frame(
        self, anomaly_map: NDArray[np.float32], frame_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Lay an anomaly map (h, w) over its frame: (H, W), outside the crop the map's minimum."""
        if self.resize is None:
            return _enlarge(anomaly_map, *frame_size)
        height, width = self.input_size
        full_height, full_width = self._full_size(frame_size)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        full = np.full((full_height, full_width), anomaly_map.min(), dtype=np.float32)
        full[top : top + height, left : left + width] = anomaly_map
        return _enlarge(full, *frame_size)

    def box_to_frame(
        self, box: tuple[float, float, float, float], frame_size: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Lay a box (x, y, width, height) of the anomaly map over its frame, in frame pixels."""
        height, width = self.input_size
        full_height, full_width = self.input_size
        if self.resize is not None:
            full_height, full_width = self._full_size(frame_size)
        scale_x, scale_y = frame_size[1] / full_width, frame_size[0] / full_height
        left, top = (full_width - width) // 2, (full_height - height) // 2
        x, y, box_width, box_height = box
        return (
            (x + left) * scale_x,
            (y + top) * scale_y,
            box_width * scale_x,
            box_height * scale_y,
        )

    def _full_size(self, frame_size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the whole frame once its shorter side is `resize` pixels."""
        height, width = frame_size[0], frame_size[1]
        scale = (self.resize or 0) / min(height, width)
        return max(round(height * scale), self.input_size[0]), max(
            round(width * scale), self.input_size[1]
        )


def read_frame(path: Path | str) -> Frame:
    """Read a picture as a frame: grey tripled, 16 bits made 8, alpha dropped, EXIF obeyed.

    16-bit values are divided by 257, so that 0..65535 becomes 0..255 for every picture alike.
    Files over 512 MiB and pictures that decode to more are refused before they take any memory.

    Raises:
        DataError: the file cannot be read, is no picture, is cut off, too large, or has another
            depth.
    """
    try:
        data = _read_file(Path(path))
    except MemoryError as error:
        raise _no_memory(str(path)) from error
    return decode_picture(data, str(path))


def _read_file(path: Path) -> bytes:
    """Return the content of a regular file, without ever waiting for a pipe or a device."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise DataError(f"expected a picture at {path}, found a pipe or device: remove it")
            if state.st_size > LARGEST_PICTURE_BYTES:
                raise DataError(
                    f"the file {path} has {state.st_size / 2**20:.0f} MiB, more than the "
                    f"{LARGEST_PICTURE_BYTES // 2**20} MiB that a picture may have: make it smaller"
                )
            return file.read(state.st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"cannot read the picture {path}: {reason}: check the path and its permissions"
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a FIFO without a writer too, which would wait for one for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode_picture(data: bytes, path: str) -> Frame:
    """Decode the content of a picture file, as `read_frame` does.

    Args:
        data: the whole file.
        path: where it comes from, for messages.

    Raises:
        DataError: as `read_frame`.
    """
    header = read_header(data)
    if header is None:
        heic = data[4:8] == b"ftyp"
        raise DataError(
            f"the file {path} is not a readable picture ({PICTURE_FORMATS}): "
            + ("it is HEIC or AVIF, convert it" if heic else "replace or remove it")
        )
    if header.decoded_bytes > LARGEST_PICTURE_BYTES:
        raise DataError(
            f"the picture {path} has {header.width} x {header.height} pixels of {header.bits} "
            f"bits, which decode to more than {LARGEST_PICTURE_BYTES // 2**20} MiB: make it smaller"
        )
    if not header.complete:
        raise DataError(f"the picture {path} is cut off or damaged: copy it again or remove it")
    try:
        pixels = cv2.imdecode(
            np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        )
    except MemoryError as error:
        raise _no_memory(path) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise _no_memory(path) from error
        raise DataError(f"the picture {path} is damaged ({error.err}): remove it") from error
    if pixels is None:
        raise DataError(f"the picture {path} is damaged and cannot be decoded: remove it")
    if pixels.dtype == np.uint16:
        # No value is half-way between two results, and no copy in floats is made.
        return np.asarray(cv2.convertScaleAbs(pixels, alpha=1 / 257), dtype=np.uint8)
    if pixels.dtype != np.uint8:
        raise DataError(
            f"expected 8 or 16 bits a channel in {path}, got {pixels.dtype}: convert the picture"
        )
    return np.asarray(pixels, dtype=np.uint8)


def _no_memory(path: str) -> DataError:
    return DataError(
        f"the picture {path} needs more memory than this device has left: make it smaller"
    )


def read_mask(path: Path | str) -> NDArray[np.bool_]:
    """Read a ground-truth mask: (H, W), True where the part is defective (any value above 0).

    Raises:
        DataError: as `read_frame`.
    """
    return np.asarray(read_frame(path).max(axis=2) > 0)


def check_frame(frame: object) -> None:
    """Refuse early what would be scored wrongly: floats, grey pictures, alpha channels.

    Raises:
        DataError: not uint8, H x W x 3.
    """
    if isinstance(frame, str | os.PathLike):
        raise DataError(f"expected a frame, got the path {frame}: read it with read_frame")
    if not isinstance(frame, np.ndarray):
        raise DataError(f"expected a frame as a numpy array, got {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        size = "x".join(str(length) for length in frame.shape)
        raise DataError(
            f"expected a frame as uint8 of H x W x 3 in BGR, got {frame.dtype} of {size}: "
            f"{_remedy(frame)}"
        )


def _remedy(frame: NDArray[np.generic]) -> str:
    """Say how what is no frame becomes one."""
    if frame.size == 0:
        return "it is empty"
    if frame.dtype != np.uint8:
        return "convert it to 0..255, values of 0..1 with (255 * frame).round().astype(np.uint8)"
    if frame.ndim == 4:
        return "it is a batch, give its frames one by one or to a function that takes several"
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "convert it with cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return "put the channels last with frame.transpose(1, 2, 0)"
    return "convert a grey frame with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"


def list_pictures(folder: Path | str) -> list[Path]:
    """Return the pictures below a folder at any depth, sorted by path, without hidden ones."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and os.path.isfile(path)
    )


def other_files(folder: Path) -> str:
    """Count the files that do not end as a picture does: `3 .heic files and 1 .txt file`."""
    endings = Counter(
        path.suffix.lower() or "unnamed"
        for path in folder.rglob("*")
        if path.suffix.lower() not in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and os.path.isfile(path)
    )
    counted = [
        f"{count} {ending} {'file' if count == 1 else 'files'}"
        for ending, count in endings.most_common(3)
    ]
    return " and ".join(counted)


def no_pictures(folder: Path) -> DataError:
    """Say what a folder holds instead of pictures, and what to do."""
    others = other_files(folder)
    if others:
        return DataError(
            f"found no pictures ({PICTURE_FORMATS}) in {folder}, only {others}: convert pictures "
            "of another kind, such as HEIC of phones, to PNG or JPEG"
        )
    return DataError(f"found no pictures ({PICTURE_FORMATS}) in {folder}: put some there")


def _resize(frame: Frame, height: int, width: int) -> Frame:
    """Area averaging where the frame shrinks, which keeps fine defects from aliasing away."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] >= height and frame.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), dtype=np.uint8)


def _nearest(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.bool_)


def _enlarge(anomaly_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    enlarged = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, dtype=np.float32)
