"""From a picture file to a frame, without trusting what the file says of itself.

A few bytes can announce gigabytes: a PNG of 50 kB decodes to 15 GB if nobody asks its header first.
"""

import logging
import os
import re
import stat
import struct
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import DataError, counted
from edge_ad_runtime.model.image import Frame

logger = logging.getLogger(__name__)

PICTURE_FORMATS = "PNG, JPEG, BMP, TIFF, WebP"
"""The formats that `read_header` knows, for messages."""

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""File name endings, lower case, that count as pictures in a folder."""

_VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".wmv")
"""Endings of videos, for messages: OpenCV opens whatever FFmpeg knows."""

_TAKE_FROM_VIDEO = "take pictures from it with `edge-ad collect --camera VIDEO --output FOLDER`"

_HEIC_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
)
"""ISO 23008-12 and AVIF: the first brand of a file in the container that MP4 uses as well."""

LARGEST_PICTURE_BYTES = 2**29
"""Largest file, and largest decoded picture: 178 megapixels at 8 bits a channel."""

_FEWER_BITS = 2**14
"""Cameras have 10, 12 or 14 bits, which some write to the lower end of 16."""

_MOST_SCANNED_PIXELS = 4e9
"""Ten scans, which is usual, of far more pixels than a picture may have."""

_PNG_END = b"\0\0\0\0IEND"
"""The length and the type of the last chunk."""

_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
"""A JPEG's marker with content, or its end; in compressed data 0 or a restart follows a 0xFF."""

_MOST_MARKERS = 100_000
"""Of a JPEG; real ones have some hundreds."""


def read_frame(path: Path | str) -> Frame:
    """Read a picture as a frame: grey tripled, 16 bits made 8, alpha dropped, EXIF obeyed.

    16-bit values are divided by 257, so that 0..65535 becomes 0..255 for every picture alike; a
    warning, once for each folder, tells of files whose values are of fewer bits.
    Files over 512 MiB and pictures that decode to more are refused before they take any memory.

    Raises:
        DataError: the file cannot be read, is not a picture, is cut off or too large, or has
            another depth.
    """
    pixels = _read_pixels(Path(path))
    if pixels.dtype == np.uint16 and 0 < pixels.max() < _FEWER_BITS:
        _tell_unused_bits(Path(path).parent)
    return _with_8_bits(pixels)


@lru_cache
def _tell_unused_bits(folder: Path) -> None:
    """Warn once for each folder, whoever reads its pictures."""
    logger.warning(
        "a picture of 16 bits in %s is nearly black: all its values are below %d of 65535. If the "
        "camera has 10, 12 or 14 bits, multiply its values by 64, 16 or 4 when they are saved, for "
        "the training and on the device",
        folder,
        _FEWER_BITS,
    )


def _read_pixels(path: Path) -> NDArray[np.uint8 | np.uint16]:
    try:
        data = _read_file(path)
    except MemoryError as error:
        raise _no_memory(str(path)) from error
    return _decode(data, str(path))


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
    return _with_8_bits(_decode(data, path))


def _with_8_bits(pixels: NDArray[np.uint8 | np.uint16]) -> Frame:
    if pixels.dtype == np.uint16:
        # No value is half-way between two results, and no copy in floats is made.
        return np.asarray(cv2.convertScaleAbs(pixels, alpha=1 / 257), dtype=np.uint8)
    return np.asarray(pixels, dtype=np.uint8)


def _decode(data: bytes, path: str) -> NDArray[np.uint8 | np.uint16]:
    header = read_header(data)
    if header is None:
        raise DataError(f"{path} is not a readable picture ({PICTURE_FORMATS}): {_instead(data)}")
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
        raise DataError(
            f"the picture {path} is damaged, or not of 8 or 16 bits: convert or remove it"
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"expected 8 or 16 bits a channel in {path}, got {pixels.dtype}: convert the picture"
        )
    return np.asarray(pixels)


def _instead(data: bytes) -> str:
    """Say what to do with a file that is not a picture."""
    if data[4:8] == b"ftyp":
        if data[8:12] in _HEIC_BRANDS:
            return "it is HEIC or AVIF, convert it"
        return f"it is a video, {_TAKE_FROM_VIDEO}"
    return "replace or remove it"


def _no_memory(path: str) -> DataError:
    return DataError(
        f"the picture {path} needs more memory than this device has left: make it smaller"
    )


def read_mask(path: Path | str) -> NDArray[np.bool_]:
    """Read a ground-truth mask: (H, W), True where the part is defective (any value above 0).

    Raises:
        DataError: as `read_frame`.
    """
    return np.asarray(_read_pixels(Path(path)).max(axis=2) > 0)


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
    """Count the files that do not end as a picture does: `3 .heic files, 1 .txt file`."""
    endings = Counter(
        path.suffix.lower() or "unnamed"
        for path in folder.rglob("*")
        if path.suffix.lower() not in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and os.path.isfile(path)
    )
    kinds = endings.most_common(3)
    return ", ".join(counted(count, f"{ending} file") for ending, count in kinds)


def no_pictures(folder: Path) -> DataError:
    """Say what a folder holds instead of pictures, and what to do."""
    others = other_files(folder)
    if any(ending in others for ending in _VIDEO_SUFFIXES):
        return DataError(
            f"found no pictures ({PICTURE_FORMATS}) in {folder}, only {others}: {_TAKE_FROM_VIDEO}"
        )
    if others:
        return DataError(
            f"found no pictures ({PICTURE_FORMATS}) in {folder}, only {others}: convert pictures "
            "of another kind, such as HEIC of phones, to PNG or JPEG"
        )
    return DataError(f"found no pictures ({PICTURE_FORMATS}) in {folder}: put some there")


class PictureHeader(NamedTuple):
    """The size of a picture as its header states it.

    Attributes:
        height: pixels.
        width: pixels.
        bits: of one channel.
        complete: False where the file evidently ends too early. OpenCV decodes the rest of a
            cut-off JPEG or PNG as grey or black and only prints a warning.
    """

    height: int
    width: int
    bits: int
    complete: bool

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded picture, three channels."""
        return self.height * self.width * 3 * ((self.bits + 7) // 8)


def read_header(data: bytes) -> PictureHeader | None:
    """Return what the file's header states; None: not a picture of a known format.

    Args:
        data: the whole file.
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data[:4] in _TIFF_STARTS:
            return _tiff(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, OverflowError):  # cut off within the header, or an absurd offset
        return None
    return None


def _png(data: bytes) -> PictureHeader:
    """Read IHDR, which must be the first chunk (W3C PNG, section 11.2.2)."""
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    # It is searched for: some devices fill the last block of a file with zeros.
    return PictureHeader(height, width, bits, complete=data.rfind(_PNG_END) > 0)


def _jpeg(data: bytes) -> PictureHeader | None:
    """Go from marker to marker, past the start of the frame, to the end (ITU T.81, annex B).

    A thumbnail, which has all of these markers too, lies within a segment and is passed over. What
    lies behind the end is not looked at: phones append videos there.
    """
    header, scans, position = None, 0, 2
    for _ in range(_MOST_MARKERS):
        found = _MARKER.search(data, position)
        if found is None:
            break
        position = found.end()
        marker = data[position - 1]
        if marker == 0xD9:
            return header and header._replace(complete=_is_possible(header, position, scans))
        if header is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, position + 2)
            header = PictureHeader(height, width, bits, complete=False)
        scans += marker == 0xDA
        position += struct.unpack_from(">H", data, position)[0]
    return header


def _is_possible(header: PictureHeader, length: int, scans: int) -> bool:
    """Whether a JPEG of this many bytes and scans can hold what it announces."""
    # 8 x 8 pixels take one bit or more. Each scan of a progressive JPEG goes over all pixels, so a
    # few bytes, again and again, could keep the decoder busy for hours.
    pixels = header.height * header.width
    return 0 < scans * pixels <= _MOST_SCANNED_PIXELS and pixels <= 512 * length


def _bmp(data: bytes) -> PictureHeader:
    (offset,) = struct.unpack_from("<I", data, 10)
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    # The oldest header has sizes of 16 bits; a negative height means: top row first.
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return PictureHeader(abs(height), abs(width), 8, complete=len(data) > offset)


_TIFF_STARTS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}

_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 258, 322, 323

_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Type codes of unsigned numbers (TIFF 6.0, section 2; 16 is BigTIFF's)."""


def _tiff(data: bytes) -> PictureHeader | None:
    """Read the first directory; a tile that is larger than the picture is decoded whole."""
    order, big = _TIFF_STARTS[data[:4]], b"+" in data[:4]
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    entry, entry_bytes = directory + (8 if big else 2), 20 if big else 12
    found = {}
    for _ in range(min(count, 65_535)):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT, _TIFF_BITS):
            found[tag] = _tiff_number(data, entry, order, kind, big)
        entry += entry_bytes
    if not (found.get(_TIFF_WIDTH) and found.get(_TIFF_HEIGHT)):
        return None
    return PictureHeader(
        height=max(found[_TIFF_HEIGHT], found.get(_TIFF_TILE_HEIGHT, 0)),
        width=max(found[_TIFF_WIDTH], found.get(_TIFF_TILE_WIDTH, 0)),
        bits=found.get(_TIFF_BITS, 1),
        complete=True,
    )


def _tiff_number(data: bytes, entry: int, order: str, kind: int, big: bool) -> int:
    """Return the first number of an entry; further ones, of the other channels, are equal."""
    form = _TIFF_NUMBERS.get(kind)
    if form is None:
        return 0
    (count,) = struct.unpack_from(order + ("Q" if big else "I"), data, entry + 4)
    place = entry + (12 if big else 8)
    if count * struct.calcsize(form) > (8 if big else 4):
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
    (number,) = struct.unpack_from(order + form, data, place)
    return int(number)


def _webp(data: bytes) -> PictureHeader | None:
    """Read the first chunk: extended, lossless or lossy (RFC 9649)."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    complete = len(data) >= riff_bytes + 8
    kind = data[12:16]
    if kind == b"VP8X":
        low = struct.unpack_from("<HBHB", data, 24)
        return PictureHeader(low[2] + (low[3] << 16) + 1, low[0] + (low[1] << 16) + 1, 8, complete)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return PictureHeader((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1, 8, complete)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return PictureHeader(height & 0x3FFF, width & 0x3FFF, 8, complete)
    return None
