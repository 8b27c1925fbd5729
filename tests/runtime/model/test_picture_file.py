"""What a file announces is known before it is decoded: bombs, sparse files, pipes and devices."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.picture_file import LARGEST_PICTURE_BYTES, read_frame, read_header


def encode(suffix: str, *, deep: bool = False, grey: bool = False) -> bytes:
    shape = (33, 57) if grey else (33, 57, 3)
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    if deep:
        return cv2.imencode(suffix, pixels.astype(np.uint16) * 257)[1].tobytes()
    return cv2.imencode(suffix, pixels)[1].tobytes()


def pillow(kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    picture = Image.effect_noise((57, 33), 90).convert("RGB")
    picture.save(written, kind, **options)
    return written.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("grey", [True, False])
def test_sizes_of_what_opencv_writes(suffix: str, grey: bool) -> None:
    header = read_header(encode(suffix, grey=grey))
    assert header is not None and header == (33, 57, 8, True)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sizes_of_deep_pictures(suffix: str) -> None:
    header = read_header(encode(suffix, deep=True))
    assert header == (33, 57, 16, True)
    assert header.decoded_bytes == 33 * 57 * 6


@pytest.mark.parametrize(
    "data",
    [
        pillow("JPEG", progressive=True),
        pillow("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", comment=b"x" * 5000),
        pillow("TIFF", compression="tiff_lzw"),
        pillow("TIFF", big_tiff=True),
        pillow("WEBP", lossless=True),
        pillow("WEBP", quality=50, icc_profile=b"x" * 400),
        pillow("PNG", optimize=True),
    ],
)
def test_sizes_of_what_pillow_writes(data: bytes) -> None:
    header = read_header(data)
    assert header is not None and header == (33, 57, 8, True)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None and pixels.shape == (33, 57, 3)


def png_bomb(side: int, bits: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    )


def bombs() -> dict[str, bytes]:
    jpeg = encode(".jpg")
    frame_header = jpeg.index(b"\xff\xc0")
    bmp = encode(".bmp")
    tiff = pillow("TIFF")
    header = tiff.index(struct.pack("<HHII", 256, 4, 1, 57))
    webp = bytearray(pillow("WEBP", quality=50, icc_profile=b"x" * 400))
    webp[24:30] = b"\xff\x3f\0\xff\x3f\0"
    return {
        "deep.png": png_bomb(60_000, 16),
        "flat.png": png_bomb(30_000, 8),
        "wide.jpg": jpeg[: frame_header + 5] + b"\xff\xdc\xff\xdc" + jpeg[frame_header + 9 :],
        "wide.bmp": bmp[:18] + struct.pack("<ii", 60_000, -60_000) + bmp[26:],
        "wide.tif": tiff[: header + 8] + struct.pack("<I", 900_000_000) + tiff[header + 12 :],
        "wide.webp": bytes(webp),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    data = bombs()[name]
    assert len(data) < 100_000
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name} has .* pixels .* decode to more than 512 MiB"):
        read_frame(tmp_path / name)


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_few_bytes_cannot_have_many_pixels(tmp_path: Path, progressive: bool) -> None:
    """Decoding the missing rest of 178 megapixels took more than ten seconds."""
    data = bytearray(pillow("JPEG", progressive=progressive))
    start = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 13_377, 13_377)
    (tmp_path / "p.jpg").write_bytes(data)
    with pytest.raises(DataError, match="cut off or damaged"):
        read_frame(tmp_path / "p.jpg")


def test_a_jpeg_of_endless_scans_is_refused(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", np.zeros((4000, 4000, 3), np.uint8))[1].tobytes()
    (tmp_path / "good.jpg").write_bytes(data)
    assert read_frame(tmp_path / "good.jpg").shape == (4000, 4000, 3)
    scan = data[data.index(b"\xff\xda") : -2]
    (tmp_path / "p.jpg").write_bytes(data[:-2] + scan * 300 + data[-2:])
    with pytest.raises(DataError, match="cut off or damaged"):
        read_frame(tmp_path / "p.jpg")


def test_what_phones_append_to_a_jpeg_is_not_looked_at() -> None:
    """Behind the picture of a motion photo lies a video, in which any bytes may stand."""
    video = b"MotionPhoto_Data" + b"\xff\xd9\xff\xda\0\x02" * 20
    assert read_header(encode(".jpg") + video) == (33, 57, 8, True)
    assert read_header(encode(".jpg")[:-2] + video[:16]) == (33, 57, 8, False)


def test_a_png_may_be_filled_up_to_whole_blocks() -> None:
    assert read_header(encode(".png") + bytes(64 << 10)) == (33, 57, 8, True)
    assert read_header(encode(".png")[:-12] + bytes(64 << 10)) == (33, 57, 8, False)


def test_a_jpeg_of_endless_segments_is_refused(tmp_path: Path) -> None:
    """120 MB of them kept the reader busy for a minute, before a byte was decoded."""
    data = encode(".jpg")
    (tmp_path / "p.jpg").write_bytes(data[:2] + b"\xff\xe0\0\x02" * 100_000 + data[2:])
    with pytest.raises(DataError, match="not a readable picture"):
        read_frame(tmp_path / "p.jpg")


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(encode(".png"))
    os.truncate(path, 30 * 2**30)
    with pytest.raises(DataError, match="has 30720 MiB, more than the 512 MiB"):
        read_frame(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_pipes_devices_and_folders_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.png").symlink_to("gone")
    refused = []

    def read_all() -> None:
        for name in ("pipe", "zero", "folder", "loop", "dangling"):
            with pytest.raises(DataError, match=f"{name}.png"):
                read_frame(tmp_path / f"{name}.png")
            refused.append(name)

    thread = threading.Thread(target=read_all, daemon=True)
    thread.start()
    thread.join(60)
    assert refused == ["pipe", "zero", "folder", "loop", "dangling"]


def test_a_picture_without_memory_for_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        error = cv2.error("Failed to allocate")
        error.code, error.err = cv2.Error.StsNoMem, "Failed to allocate"
        raise error

    (tmp_path / "p.png").write_bytes(encode(".png"))
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(DataError, match=r"p\.png needs more memory"):
        read_frame(tmp_path / "p.png")


def test_paths_as_text_and_impossible_ones(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(encode(".png"))
    assert read_frame(str(tmp_path / "p.png")).shape == (33, 57, 3)
    for path in (
        str(tmp_path / "a\0b.png"),
        str(tmp_path / ("x" * 5000)),
        str(tmp_path / "\ud800"),
    ):
        with pytest.raises(DataError, match="cannot read the picture"):
            read_frame(path)


def test_formats_of_other_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(DataError, match="HEIC"):
        read_frame(tmp_path / "phone.heic")
    (tmp_path / "anim.png").write_bytes(pillow("GIF"))
    with pytest.raises(DataError, match="not a readable picture"):
        read_frame(tmp_path / "anim.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_headers_that_are_cut_off_anywhere(suffix: str) -> None:
    data = encode(suffix)
    for length in range(0, min(len(data), 400)):
        read_header(data[:length])


def test_the_limit_leaves_room_for_large_sensors() -> None:
    header = read_header(png_bomb(12_000, 8))
    assert header is not None and header.decoded_bytes < LARGEST_PICTURE_BYTES
