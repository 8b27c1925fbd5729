"""Pictures from folders and ZIPs: what is taken, what is refused, and that nothing else happens."""

import errno
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad.data import load_category
from edge_ad.project import zips
from edge_ad.project.folder import CategoryFolder
from edge_ad.project.intake import take_pictures
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import remove_leftovers
from edge_ad_runtime.model.picture_file import read_frame


def png(value: int) -> bytes:
    pixels = np.full((24, 32, 3), value, np.uint8)
    pixels[4:8, 4:8] = 0
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> CategoryFolder:
    return CategoryFolder.create("plate", tmp_path / "data")


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def files_in(folder: CategoryFolder) -> list[str]:
    paths = (path for path in folder.path.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder.path).as_posix() for path in paths)


def test_a_zip_in_mvtec_layout_keeps_labels_and_masks(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    source = zipped(
        tmp_path / "all.zip",
        {
            "plate/train/good/000.png": png(90),
            "plate/test/good/000.png": png(91),
            "plate/test/scratch/000.png": png(92),
            "plate/ground_truth/scratch/000_mask.png": png(255),
            "plate/readme.txt": b"nothing for us",
            "__MACOSX/plate/train/good/._000.png": b"x",
        },
    )
    found = take_pictures(source, folder)
    assert (len(found.taken), found.masks, found.refused) == (3, 1, [])
    category = load_category("plate", folder.path.parent)
    assert (len(category.train), [sample.label for sample in category.test]) == (
        1,
        ["good", "scratch"],
    )
    assert category.test[1].mask_path is not None


def test_the_same_names_again_are_added_beside(folder: CategoryFolder, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    (source / "1.png").write_bytes(png(10))
    take_pictures(source, folder)
    (source / "1.png").write_bytes(png(20))
    take_pictures(source, folder)
    assert files_in(folder) == ["train/good/1-2.png", "train/good/1.png"]
    assert read_frame(folder.path / "train/good/1.png").max() == 10


def test_defective_pictures_go_to_the_test(folder: CategoryFolder, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(10))
    take_pictures(tmp_path / "1.png", folder, use="train", label="dent")
    assert files_in(folder) == ["test/dent/1.png"]


@pytest.mark.parametrize(
    "name", ["../../outside.png", "/etc/outside.png", "..\\..\\outside.png", "C:\\outside.png"]
)
def test_a_zip_that_leads_out_is_refused_as_a_whole(
    folder: CategoryFolder, tmp_path: Path, name: str
) -> None:
    source = zipped(tmp_path / "evil.zip", {"fine.png": png(1), name: png(2)})
    with pytest.raises(DataError, match="leads out of it"):
        take_pictures(source, folder)
    assert files_in(folder) == []
    assert not list(tmp_path.rglob("outside.png"))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("big.bmp", "w", force_zip64=True) as entry:
            for _ in range(zips.RATIO_FROM // 2**20 + 1):
                entry.write(bytes(2**20))
    assert (tmp_path / "bomb.zip").stat().st_size < 2**20
    with pytest.raises(DataError, match="which pictures never do"):
        take_pictures(tmp_path / "bomb.zip", folder)
    assert files_in(folder) == []


def test_too_many_files_and_too_many_bytes_are_refused(
    folder: CategoryFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = zipped(tmp_path / "many.zip", {f"{n}.png": png(n) for n in range(4)})
    monkeypatch.setattr(zips, "MOST_ZIP_FILES", 3)
    with pytest.raises(DataError, match="split it"):
        take_pictures(source, folder)
    assert files_in(folder) == []


def test_encrypted_and_damaged_zips_say_so(folder: CategoryFolder, tmp_path: Path) -> None:
    source = zipped(tmp_path / "locked.zip", {"1.png": png(1)})
    data = bytearray(source.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    source.write_bytes(bytes(data))
    with pytest.raises(DataError, match="encrypted"):
        take_pictures(source, folder)
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(DataError, match=r"broken\.zip is damaged or not a ZIP file"):
        take_pictures(tmp_path / "broken.zip", folder)


def test_what_cannot_be_read_is_named_and_the_rest_is_taken(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    damaged = zipped(
        tmp_path / "mixed.zip",
        {"1.png": png(1), "2.png": png(2)[:-30], "3.heic": heic, "4.jpg": heic},
    )
    found = take_pictures(damaged, folder)
    assert [path.name for path in found.taken] == ["1.png"]
    refused = "\n".join(sorted(found.refused))
    assert "3.heic is not a PNG, JPEG, BMP, TIFF or WebP file: convert it first" in refused
    assert "2.png is cut off or damaged" in refused
    assert "4.jpg is not a readable picture" in refused and "HEIC" in refused
    assert str(folder.path) not in refused
    assert files_in(folder) == ["train/good/1.png"]


def test_a_tiff_of_16_bits_is_read(folder: CategoryFolder, tmp_path: Path) -> None:
    pixels = np.full((20, 30), 65535, np.uint16)
    pixels[:10] = 257 * 100
    cv2.imwrite(str(tmp_path / "deep.tiff"), pixels)
    found = take_pictures(tmp_path / "deep.tiff", folder)
    frame = read_frame(found.taken[0])
    assert (frame[0, 0, 0], frame[-1, 0, 0]) == (100, 255)


def test_a_folder_without_pictures_says_what_was_expected(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="found no pictures in it"):
        take_pictures(tmp_path / "none", folder)
    with pytest.raises(DataError, match="found no file or folder"):
        take_pictures(tmp_path / "nowhere", folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a.png", b"././."),  # no name at all
        (b"PK\x01\x02\x14\x03\x14\0\0\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0"),  # a method
        (b"PK\x03\x04", b"PK\x03\x05"),
    ],
)
def test_a_zip_that_its_module_cannot_read(
    folder: CategoryFolder, tmp_path: Path, old: bytes, new: bytes
) -> None:
    source = zipped(tmp_path / "z.zip", {"a.png": png(90), "b.txt": b"-"})
    source.write_bytes(source.read_bytes().replace(old, new))
    try:
        assert take_pictures(source, folder).refused[0].count("damaged") == 1
    except DataError as error:
        assert "leads out of it" in str(error) or "damaged" in str(error)
    assert files_in(folder) == []


def test_what_is_being_taken_in_is_no_leftover(folder: CategoryFolder, tmp_path: Path) -> None:
    source = zipped(tmp_path / "two.zip", {"1.png": png(1), "2.png": png(2)})

    def start_a_studio(done: int, total: int) -> None:
        remove_leftovers(folder.path)

    assert len(take_pictures(source, folder, tell=start_a_studio).taken) == 2
    assert [path.name for path in folder.path.iterdir()] == ["train"]


def test_a_folder_that_cannot_be_written_to(
    folder: CategoryFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.png").write_bytes(png(90))
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(DataError, match="No space left"):
        take_pictures(tmp_path / "a.png", folder)
