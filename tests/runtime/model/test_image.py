"""Reading pictures of every kind, and the geometry between frame and input."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.image import Frame, Preprocessing
from edge_ad_runtime.model.picture_file import list_pictures, read_frame, read_mask


def ramp(height: int = 24, width: int = 40) -> Frame:
    """A smooth picture whose three channels and four corners differ."""
    rows, columns = np.mgrid[:height, :width]
    blue = rows * 255 // (height - 1)
    green = columns * 255 // (width - 1)
    red = 255 - (blue + green) // 2
    return np.stack([blue, green, red], axis=2).astype(np.uint8)


def write(path: Path, pixels: NDArray[np.integer[Any] | np.floating[Any]]) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
def test_lossless_colour(tmp_path: Path, suffix: str) -> None:
    frame = read_frame(write(tmp_path / f"p.{suffix}", ramp()))
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, ramp())


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_jpeg(tmp_path: Path, suffix: str) -> None:
    frame = read_frame(write(tmp_path / f"p.{suffix}", ramp()))
    assert np.abs(frame.astype(int) - ramp()).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_is_tripled(tmp_path: Path, suffix: str) -> None:
    grey = ramp()[:, :, 0]
    frame = read_frame(write(tmp_path / f"p.{suffix}", grey))
    np.testing.assert_array_equal(frame, np.dstack([grey] * 3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("grey", [True, False])
def test_16_bits_become_8(tmp_path: Path, suffix: str, grey: bool) -> None:
    full = ramp()[:, :, 0] if grey else ramp()
    frame = read_frame(write(tmp_path / f"p.{suffix}", full.astype(np.uint16) * 257))
    np.testing.assert_array_equal(frame, np.dstack([full] * 3) if grey else full)


@pytest.mark.parametrize(("depth", "told"), [(np.uint16, True), (np.uint8, False)])
def test_bits_that_are_not_used_are_told_once_for_each_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, depth: type, told: bool
) -> None:
    """Dark pictures of 8 bits, black ones and masks are no sign of them."""
    dark = ramp() // 5
    for name in ("a", "b"):
        write(tmp_path / f"{name}.png", dark.astype(depth) * (80 if told else 1))
        assert read_frame(tmp_path / f"{name}.png").max() < 64
    write(tmp_path / "black.png", np.zeros((8, 8), np.uint16))
    read_frame(tmp_path / "black.png")
    assert caplog.text.count(f"in {tmp_path} is nearly black") == told


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_other_modes_of_png(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.ascontiguousarray(ramp()[:, :, ::-1]))
    if mode in ("RGBA", "LA"):
        picture = picture.convert(mode)
        picture.putalpha(Image.new("L", picture.size, 10))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "p.png")
    expected = np.asarray(picture.convert("RGBA").convert("RGB"))[:, :, ::-1]
    np.testing.assert_array_equal(read_frame(tmp_path / "p.png"), expected)


@pytest.mark.parametrize(
    ("orientation", "turns"),
    [(1, 0), (3, 2), (6, 3), (8, 1)],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_rotation_is_obeyed(tmp_path: Path, orientation: int, turns: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ramp()[:, :, ::-1]))
    stored.save(tmp_path / f"p.{suffix}", exif=exif, quality=98, subsampling=0)
    expected = np.rot90(ramp(), turns)
    frame = read_frame(tmp_path / f"p.{suffix}")
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_off_pictures_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = write(tmp_path / f"p.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=f"p.{suffix}"):
        read_frame(path)


def test_a_cut_off_jpeg_with_a_thumbnail_is_refused(tmp_path: Path) -> None:
    """The end marker of the thumbnail must not count as that of the picture."""
    path = write(tmp_path / "thumb.jpg", ramp())
    thumbnail = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    data = write(tmp_path / "p.jpg", noise).read_bytes()
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    path.write_bytes(whole)
    assert read_frame(path).shape == (64, 64, 3)
    path.write_bytes(whole[:-500])
    with pytest.raises(DataError, match="cut off"):
        read_frame(path)


@pytest.mark.parametrize(
    ("brand", "words"), [(b"heic", "HEIC or AVIF, convert it"), (b"isom", "it is a video, take")]
)
def test_phone_pictures_and_videos_are_told_apart(tmp_path: Path, brand: bytes, words: str) -> None:
    (tmp_path / "p.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(90))
    with pytest.raises(DataError, match=words):
        read_frame(tmp_path / "p.jpg")


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\nIEND", b"\xff\xd8\xff\xd9"])
def test_files_that_are_no_pictures_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.png").write_bytes(data)
    with pytest.raises(DataError, match=r"p\.png"):
        read_frame(tmp_path / "p.png")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        read_frame(tmp_path / "gone.png")


def test_float_pictures_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.tif", np.ones((8, 8, 3), np.float32))
    with pytest.raises(DataError, match="8 or 16 bits"):
        read_frame(path)


def test_umlauts_and_spaces_in_paths(tmp_path: Path) -> None:
    path = tmp_path / "gute Stücke" / "Prüfling 1.png"
    path.parent.mkdir()
    path.write_bytes(cv2.imencode(".png", ramp())[1].tobytes())
    assert read_frame(path).shape == (24, 40, 3)


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_masks_are_true_above_zero(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: int, depth: type
) -> None:
    pixels: NDArray[np.integer[Any]] = np.zeros((10, 12), depth)
    pixels[2:5, 3:7] = value
    mask = read_mask(write(tmp_path / "m.png", pixels))
    assert mask.dtype == np.bool_ and not caplog.text
    np.testing.assert_array_equal(mask, pixels > 0)


def test_list_pictures(tmp_path: Path) -> None:
    for name in ["b.png", "a/c.JPG", ".hidden.png", ".cache/d.png", "notes.txt", "a/e.tiff"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in list_pictures(tmp_path)]
    assert names == ["a/c.JPG", "a/e.tiff", "b.png"]


def test_the_whole_frame_is_stretched() -> None:
    resized = Preprocessing(input_size=(64, 96)).apply(ramp(240, 360))
    assert resized.shape == (64, 96, 3)
    assert np.abs(resized.astype(int) - ramp(64, 96)).max() <= 4


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    assert (Preprocessing(input_size=(32, 32)).apply(stripes) == 100).all()


def test_a_frame_of_the_right_size_stays_as_it_is() -> None:
    np.testing.assert_array_equal(
        Preprocessing(input_size=(32, 40)).apply(ramp(32, 40)), ramp(32, 40)
    )


@pytest.mark.parametrize("size", [(120, 180), (180, 120), (64, 64), (20, 30)])
def test_resize_and_centre_crop(size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(input_size=(64, 64), resize=80)
    frame = np.zeros((*size, 3), np.uint8)
    height, width = size
    frame[height // 2 - height // 10 : height // 2 + height // 10] = 90
    frame[:, width // 2 - width // 10 : width // 2 + width // 10] = 180
    image = preprocessing.apply(frame)
    assert image.shape == (64, 64, 3)
    assert (image[32, 32] == 180).all()
    assert image[2, 2].max() == 0 and image[61, 61].max() == 0
    np.testing.assert_allclose(image, image[::-1], atol=16)
    np.testing.assert_allclose(image, image[:, ::-1], atol=16)


@pytest.mark.parametrize("resize", [None, 80])
def test_masks_and_frames_keep_together(resize: int | None) -> None:
    preprocessing = Preprocessing(input_size=(64, 64), resize=resize)
    mask = np.zeros((160, 240), np.bool_)
    mask[50:90, 90:150] = True
    frame = np.dstack([mask.astype(np.uint8) * 255] * 3)
    seen = preprocessing.apply(frame)[:, :, 0] > 127
    as_mask = preprocessing.apply_mask(mask)
    assert as_mask.shape == (64, 64) and as_mask.dtype == np.bool_
    overlap = (seen & as_mask).sum() / (seen | as_mask).sum()
    assert overlap > 0.9


@pytest.mark.parametrize("resize", [None, 80])
def test_map_to_frame_is_the_way_back(resize: int | None) -> None:
    preprocessing = Preprocessing(input_size=(64, 64), resize=resize)
    mask = np.zeros((160, 240), np.bool_)
    mask[50:90, 100:140] = True
    anomaly_map = preprocessing.apply_mask(mask).astype(np.float32) + 1
    back = preprocessing.map_to_frame(anomaly_map, (160, 240))
    assert back.shape == (160, 240) and back.dtype == np.float32
    hot = back > 1.5
    assert (hot & mask).sum() / (hot | mask).sum() > 0.9


def test_outside_the_crop_the_map_is_at_its_minimum() -> None:
    preprocessing = Preprocessing(input_size=(64, 64), resize=64)
    anomaly_map = np.full((64, 64), 5, np.float32)
    anomaly_map[0, 0] = 3
    back = preprocessing.map_to_frame(anomaly_map, (64, 192))
    assert (back[:, :60] == 3).all() and (back[:, 132:] == 3).all()
    assert (back[8:, 72:120] == 5).all()


@pytest.mark.parametrize(
    ("input_size", "resize", "words"),
    [((16, 64), None, "at least 32x32"), ((224, 224), 200, "at least the crop")],
)
def test_impossible_sizes_are_refused(
    input_size: tuple[int, int], resize: int | None, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        Preprocessing(input_size=input_size, resize=resize)
