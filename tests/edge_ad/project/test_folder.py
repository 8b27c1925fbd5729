"""A category's folder: labels are places, and every change is a rename."""

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad.data import load_category
from edge_ad.project.folder import CategoryFolder, Picture
from edge_ad.project.marks import join, read_marks
from edge_ad.project.thumbnails import SIDE, Thumbnails, flags
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.model.picture_file import read_frame
from tests.conftest import write_picture


@pytest.fixture
def folder(data_root: Path, tmp_path: Path) -> CategoryFolder:
    import shutil

    shutil.copytree(data_root / "plate", tmp_path / "data" / "plate")
    return CategoryFolder(tmp_path / "data" / "plate")


def test_labels_move_pictures_and_their_masks(folder: CategoryFolder) -> None:
    defect = next(one for one in folder.pictures() if one.mask is not None)
    moved = folder.place(defect.key, "test", "dent")
    assert moved.key == "test/dent/000.png"
    assert moved.mask == folder.path / "ground_truth/dent/000_mask.png"
    assert moved.mask.is_file() and not defect.path.exists()
    assert folder.labels() == ["dent", "spot"]
    # Good again: it may be learnt from.
    assert folder.place(moved.key, "train", "good").key == "train/good/000-2.png"
    assert len(load_category("plate", folder.path.parent).train) == 25


def test_names_that_come_twice_lose_no_picture(folder: CategoryFolder, tmp_path: Path) -> None:
    """Two browsers send files of one name at once; a mask belongs to one stem."""
    sources = [tmp_path / f"{number}.png" for number in range(40)]
    for source in sources:
        source.write_bytes(source.name.encode())
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda one: folder.add(one, "test", "dent", "image.png"), sources))
    assert {path.read_bytes().decode() for path in paths} == {one.name for one in sources}
    (tmp_path / "x.jpg").touch()
    assert folder.add(tmp_path / "x.jpg", "test", "dent", "image.jpg").name == "image-41.jpg"


def test_a_mask_of_a_deleted_picture_goes_to_no_other(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    defect = next(one for one in folder.pictures() if one.mask is not None)
    assert defect.mask is not None
    drawn = defect.mask.read_bytes()
    # Good by mistake, and defective again: the mask is still its own.
    good = folder.place(defect.key, "test", "good")
    defect = folder.place(good.key, "test", defect.label)
    assert defect.mask is not None and defect.mask.read_bytes() == drawn
    defect.path.unlink()
    (tmp_path / "new.png").touch()
    new = folder.add(tmp_path / "new.png", "test", defect.label, defect.path.name)
    assert new.name != defect.path.name
    assert folder.picture(new.relative_to(folder.path).as_posix()).mask is None


def test_an_excluded_picture_is_left_out_and_comes_back(folder: CategoryFolder) -> None:
    excluded = folder.exclude("train/good/003.png")
    assert (excluded.key, excluded.excluded) == ("excluded/train/good/003.png", True)
    assert len(load_category("plate", folder.path.parent).train) == 23
    assert folder.restore(excluded.key).key == "train/good/003.png"
    assert len(load_category("plate", folder.path.parent).train) == 24


def test_a_plain_folder_gets_the_layout_with_its_first_change(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png"):
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "plain" / name), np.zeros((20, 20, 3), np.uint8))
    folder = CategoryFolder(tmp_path / "plain")
    assert [one.key for one in folder.pictures()] == ["a.png", "deep/b.png"]
    assert folder.place("deep/b.png", "test", "dent").key == "test/dent/b.png"
    assert [one.key for one in folder.pictures()] == ["train/good/a.png", "test/dent/b.png"]


def test_two_browsers_that_change_a_plain_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / name).touch()
    folder, real, other = CategoryFolder(tmp_path / "plain"), os.rename, ThreadPoolExecutor(1)
    begun: list[Future[Picture]] = []

    def late(source: Path, target: Path) -> None:
        real(source, target)
        if not begun:  # some pictures lie in the layout by now, and others do not
            begun.append(other.submit(folder.place, "c.png", "test", "dent"))
            wait(begun, 0.3)

    monkeypatch.setattr("os.rename", late)
    assert folder.place("a.png", "test", "good").key == "test/good/a.png"
    assert begun[0].result(60).key == "test/dent/c.png"
    assert next(one.key for one in folder.pictures()) == "train/good/b.png"
    assert not list(folder.path.glob("*.png"))


def test_a_marked_part_that_two_people_confirm_joins_once(
    folder: CategoryFolder, tmp_path: Path
) -> None:
    marked = tmp_path / "marks/train/good/20260102-left-000007.png"
    write_picture(marked, np.full((64, 96, 3), 90, np.uint8))
    (one,) = read_marks(tmp_path / "marks", folder)
    before = len(folder.pictures())
    with ThreadPoolExecutor(4) as pool:
        joined = set(pool.map(lambda _: join(one, folder), range(4)))
    assert joined == {folder.path / "train/good" / marked.name}
    assert len(folder.pictures()) == before + 1
    assert read_marks(tmp_path / "marks", folder)[0].known


def test_a_camera_beside_the_pictures_of_a_plain_folder_hides_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    cv2.imwrite(str(tmp_path / "plain/a.png"), np.zeros((20, 20, 3), np.uint8))
    folder = CategoryFolder(tmp_path / "plain")
    assert folder.folder_for("train", "good") == tmp_path / "plain/train/good"
    assert folder.folder_for("test", "dent").is_dir()
    assert [one.key for one in folder.pictures()] == ["train/good/a.png"]
    with pytest.raises(ConfigError, match="name of up to 60"):
        folder.folder_for("test", "../x")


def test_what_is_gone_or_wrong_is_told_in_a_sentence(folder: CategoryFolder) -> None:
    (folder.path / "train/good/000.png").unlink()
    with pytest.raises(DataError, match=r"000\.png is no longer there"):
        folder.exclude("train/good/000.png")
    for key in ("../plate/train/good/001.png", "/etc/passwd", "train/good/001.txt", ""):
        with pytest.raises(DataError, match="no longer there"):
            folder.picture(key)
    for label in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="name of up to 60"):
            folder.place("train/good/001.png", "test", label)
    for name in (
        "",
        "a/b",
        "a ",
        "a.",
        "-a",
        "a#b",
        "../x",
        ".x",
        " a",
        "train",
        "elpv-mono",
        61 * "a",
    ):
        with pytest.raises(ConfigError, match="such as cable-M8"):
            CategoryFolder.create(name, folder.path.parent)
    for name in ("Gehäuse (Linie 3)", "v1.2", "M8", "[M8] a+b, c", 60 * "a"):
        assert CategoryFolder.create(name, folder.path.parent).name == name
    with pytest.raises(ConfigError, match="already a product plate"):
        CategoryFolder.create("plate", folder.path.parent)


def test_masks_are_drawn_and_taken_away(folder: CategoryFolder) -> None:
    picture = folder.place("train/good/001.png", "test", "dent")
    mask = np.zeros((64, 96), bool)
    mask[3:9, 4:12] = True
    folder.set_mask(picture.key, mask)
    (sample,) = [
        one for one in load_category("plate", folder.path.parent).test if one.label == "dent"
    ]
    assert sample.mask_path is not None
    assert np.array_equal(read_frame(sample.mask_path).max(axis=2) > 0, mask)
    folder.set_mask(picture.key, np.zeros_like(mask))
    assert folder.picture(picture.key).mask is None
    with pytest.raises(DataError, match="good part"):
        folder.set_mask("train/good/002.png", mask)


def test_thumbnails_are_made_once_and_follow_their_picture(
    folder: CategoryFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(folder.path / "train/good/big.png"), np.full((800, 1600, 3), 90, np.uint8))
    thumbnails = Thumbnails(tmp_path / "small")
    small = thumbnails.of(folder.path / "train/good/big.png")
    assert read_frame(small).shape == (SIDE // 2, SIDE, 3)
    made_at = small.stat().st_mtime_ns
    moved = folder.exclude("train/good/big.png")
    assert thumbnails.of(moved.path) == small and small.stat().st_mtime_ns == made_at
    (folder.path / "train/good/bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not a readable picture"):
        thumbnails.of(folder.path / "train/good/bad.png")


def test_doubtful_pictures_are_flagged(folder: CategoryFolder, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    good = folder.path / "train/good"
    frame = read_frame(good / "004.png")
    cv2.imwrite(str(good / "again.png"), np.clip(frame, 0, 253) + np.uint8(2))
    cv2.imwrite(str(good / "soft.png"), cv2.GaussianBlur(read_frame(good / "005.png"), (0, 0), 6))
    cv2.imwrite(str(good / "white.png"), np.full((64, 96, 3), 255, np.uint8))
    cv2.imwrite(str(good / "black.png"), rng.integers(0, 3, (64, 96, 3)).astype(np.uint8))
    (good / "bad.png").write_bytes(b"no picture")
    found = flags(folder.pictures(), Thumbnails(tmp_path / "small"))
    first = {key.rpartition("/")[2]: texts[0] for key, texts in found.items()}
    assert first["again.png"] == "nearly the same picture as 004.png"
    assert first["soft.png"].startswith("blurred")
    assert first["white.png"].startswith("over-exposed")
    assert first["black.png"].startswith("under-exposed")
    assert first["bad.png"].startswith("cannot be read")
    assert set(first) == {"again.png", "soft.png", "white.png", "black.png", "bad.png"}


def test_a_key_leads_to_no_picture_outside(tmp_path: Path) -> None:
    folder = CategoryFolder.create("plate", tmp_path)
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"x")
    for key in (str(outside), "../secret.png", "train/../../secret.png", "train/\0.png"):
        with pytest.raises(DataError, match="no longer there"):
            folder.picture(key)
    for key in (f"{'a' * 300}.png", "a/" * 3000 + "a.png", ".png", "excluded.png", "\ud800.png"):
        with pytest.raises(DataError, match="no longer there"):
            folder.picture(key)
