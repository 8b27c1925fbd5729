"""What a picture file says about itself, read before anything is decoded.

A few bytes can announce gigabytes: a PNG of 50 kB decodes to 15 GB if nobody asks its header first.
"""

import struct
from typing import NamedTuple

PICTURE_FORMATS = "PNG, JPEG, BMP, TIFF, WebP"
"""The formats that `read_header` knows, for messages."""

_MOST_SCANNED_PIXELS = 4e9
"""Ten scans, which is usual, of far more pixels than a picture may have."""


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
    return PictureHeader(height, width, bits, complete=b"IEND" in data[-4096:])


def _jpeg(data: bytes) -> PictureHeader | None:
    """Go from marker to marker, past the start of the frame, to the first scan (ITU T.81, annex B).

    A thumbnail, which has all of these markers too, lies within a segment and is passed over.
    """
    header = None
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        position += 1
        marker, length = struct.unpack_from(">BH", data, position)
        if marker == 0xFF or marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            continue  # a fill byte, or a marker without content
        if marker == 0xD9:
            break
        if marker == 0xDA:
            return header._replace(complete=_is_whole(data, header)) if header else None
        if header is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, position + 3)
            header = PictureHeader(height, width, bits, complete=False)
        position += 1 + length
    return header


def _is_whole(data: bytes, header: PictureHeader) -> bool:
    """Whether a JPEG has an end, and can hold what it announces."""
    # 0xFF is escaped inside compressed data: an end marker follows the last scan's start.
    ends = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    # 8 x 8 pixels take one bit or more. Each scan of a progressive JPEG goes over all pixels, so a
    # few bytes, again and again, could keep the decoder busy for hours.
    pixels = header.height * header.width
    scans = data.count(b"\xff\xda")
    return ends and pixels <= 512 * len(data) and scans * pixels <= _MOST_SCANNED_PIXELS


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
