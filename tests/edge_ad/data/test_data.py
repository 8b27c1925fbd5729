"""Finding, reading and splitting pictures."""

import importlib.util
import logging
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ad.data import Dataset, Sample, choose_input_size, load_category
from edge_ad.data.dataset import content_hash
from edge_ad_runtime.errors import DataError, MissingExtraError
from edge_ad_runtime.model.image import Preprocessing

SMALL = Preprocessing(input_size=(32, 64))


def picture(path: Path, size: tuple[int, int] = (40, 50), value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def pictures(folder: Path, count: int) -> Path:
    """Pictures whose grey value is ten times their number, of different sizes."""
    for index in range(count):
        picture(folder / f"{index:02}.png", size=(40 + index, 60), value=10 * index)
    return folder


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """A data root with `mvtec_anomaly_detection/cable` in MVTec layout."""
    root = tmp_path / "datasets"
    cable = root / "mvtec_anomaly_detection" / "cable"
    pictures(cable / "train/good", 3)
    pictures(cable / "test/good", 2)
    pictures(cable / "test/cut", 2)
    pictures(cable / "test/missing_good", 1)
    picture(cable / "ground_truth/cut/00_mask.png")
    picture(cable / "ground_truth/cut/01.png")
    return root


def test_mvtec_layout_one_level_deeper(mvtec: Path) -> None:
    category = load_category("cable", mvtec)
    assert category.name == "cable"
    assert [sample.path.name for sample in category.train] == ["00.png", "01.png", "02.png"]
    assert not any(sample.anomalous for sample in category.train)
    labels = [sample.label for sample in category.test]
    assert labels == ["cut", "cut", "good", "good", "missing_good"]
    masks = [sample.mask_path.name if sample.mask_path else None for sample in category.test]
    assert masks == ["00_mask.png", "01.png", None, None, None]


def test_good_is_decided_by_the_folder_below_test_alone(tmp_path: Path) -> None:
    root = tmp_path / "good" / "datasets"
    pictures(root / "good" / "train/good", 2)
    pictures(root / "good" / "test/bad/good", 1)
    (sample,) = load_category("good", root).test
    assert sample.anomalous and sample.label == "bad"


def test_masks_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "nut/train/good", 1)
    picture(tmp_path / "nut/test/cut/left/7.jpg")
    mask = picture(tmp_path / "nut/ground_truth/cut/left/7_mask.png")
    (sample,) = load_category("nut", tmp_path).test
    assert sample.mask_path == mask


def test_masks_of_other_names_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path / "nut/train/good", 1)
    picture(tmp_path / "nut/test/cut/7.jpg")
    picture(tmp_path / "nut/ground_truth/cut/7_gt.png")
    (sample,) = load_category("nut", tmp_path).test
    assert sample.mask_path is None
    assert "ground_truth/cut/7_mask.png, found" in caplog.text and "7_gt.png" in caplog.text
    picture(tmp_path / "nut/ground_truth/cut/7_mask.png")
    caplog.clear()
    load_category("nut", tmp_path)
    assert not caplog.text


@pytest.mark.parametrize("place", ["", "a/b", "train", "train/good"])
def test_any_folder_of_good_parts(tmp_path: Path, place: str) -> None:
    pictures(tmp_path / "part" / place, 3)
    category = load_category("part", tmp_path)
    assert len(category.train) == 3
    assert len(category.test) == 0


def test_folders_of_which_nothing_says_that_they_are_good_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("badge", "notch"):
        pictures(tmp_path / "part" / place, 2)
    assert len(load_category("part", tmp_path).train) == 4
    assert "the pictures in badge, notch are all taken for good parts" in caplog.text


def test_a_data_root_that_is_itself_the_folder_of_pictures(tmp_path: Path) -> None:
    pictures(tmp_path / "part", 2)
    with pytest.raises(DataError, match=f"give `--data-root {tmp_path} --class part`"):
        load_category("part", tmp_path / "part")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["part/good", "part/scratch"], "not clear what to learn from"),
        (["part/OK", "part/NOK"], "not clear what to learn from.* --class OK`"),
        (["part/Monday", "part/defective parts"], "--class Monday`"),
        (["part/Ausschuß", "part/gute Teile"], "--class 'gute Teile'`"),
        (["part/test/good"], "part/train/good, found only test"),
        (["part/train/ok", "part/train/bad"], "found bad, ok"),
        (["part/train/good", "part/test"], "without a label"),
        (["a/part", "b/part"], "several places"),
        (["part/nut/train/good", "part/cable/train/good"], "classes cable, nut.*--class cable`"),
    ],
)
def test_refuses_what_can_be_read_in_two_ways(
    tmp_path: Path, places: list[str], words: str
) -> None:
    for place in places:
        pictures(tmp_path / place, 1)
    with pytest.raises(DataError, match=words):
        load_category("part", tmp_path)


def test_other_folders_beside_the_good_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures(tmp_path / "part/train/good", 2)
    pictures(tmp_path / "part/train/bad", 2)
    with caplog.at_level(logging.WARNING):
        assert len(load_category("part", tmp_path).train) == 2
    assert "train/good is used" in caplog.text


def test_missing_class_names_what_was_looked_for_and_what_is_there(mvtec: Path) -> None:
    pictures(mvtec / "washer", 1)
    with pytest.raises(DataError) as error:
        load_category("wascher", mvtec)
    message = str(error.value)
    assert str(mvtec / "wascher") in message
    assert "found cable, washer" in message
    assert "mvtec.com" not in message


def test_missing_mvtec_class_names_the_download_page(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_category("bottle", tmp_path / "datasets")
    message = str(error.value)
    assert "does not exist" in message
    assert "https://www.mvtec.com/company/research/datasets/mvtec-ad" in message
    assert f"tar -xf mvtec_anomaly_detection.tar.xz -C {tmp_path / 'datasets'}" in message


@pytest.mark.parametrize("name", ["", "a/b", "..", "/tmp"])
def test_a_class_is_the_name_of_one_folder(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "a/b", 1)
    with pytest.raises(DataError, match="name of one folder"):
        load_category(name, tmp_path)


@pytest.mark.parametrize("folder", ["part", "part/train/good"])
def test_empty_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=r"found no pictures .*: put some there"):
        load_category("part", tmp_path)


@pytest.mark.parametrize(("name", "n_train", "n_test"), [("elpv-mono", 470, 431)])
def test_elpv(name: str, n_train: int, n_test: int) -> None:
    category = load_category(name, Path("nowhere"))
    assert (len(category.train), len(category.test)) == (n_train, n_test)
    assert not any(sample.anomalous for sample in category.train)
    assert sum(sample.label == "defect" for sample in category.test) == 313
    paths = {sample.path for sample in (*category.train, *category.test)}
    assert len(paths) == n_train + n_test and all(path.is_file() for path in paths)
    assert list(load_category(name, Path("nowhere")).train) == list(category.train)


def test_elpv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"edge-ad\[demo\]"):
        load_category("elpv-poly", Path())


def test_batches_keep_the_order_and_take_any_size(tmp_path: Path) -> None:
    dataset = Dataset.from_folder(pictures(tmp_path, 11))
    batches = list(dataset.batches(SMALL, batch_size=4))
    assert [frames.shape for _, frames in batches] == [(4, 32, 64, 3)] * 2 + [(3, 32, 64, 3)]
    assert [sample for samples, _ in batches for sample in samples] == list(dataset)
    values = np.concatenate([frames[:, 0, 0, 0] for _, frames in batches])
    assert values.tolist() == list(range(0, 110, 10))


def test_reading_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def read_frame(path: Path) -> object:
        read.append(path)
        return np.zeros((32, 64, 3), np.uint8)

    monkeypatch.setattr("edge_ad.data.dataset.read_frame", read_frame)
    dataset = Dataset([Sample(path=tmp_path / f"{index}.png") for index in range(500)])
    batches = dataset.batches(SMALL, batch_size=4)
    next(batches)
    assert len(read) <= 4 + 8
    batches.close()  # type: ignore[attr-defined]
    assert len(read) <= 4 + 8


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    (pictures(tmp_path, 3) / "01.png").write_bytes(b"not a picture")
    dataset = Dataset.from_folder(tmp_path)
    with pytest.raises(DataError, match=r"01\.png.*--skip-bad"):
        list(dataset.batches(SMALL))
    assert dataset.bad == []


def test_a_corrupt_picture_is_left_out_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures(tmp_path, 5) / "02.png").write_bytes(b"not a picture")
    dataset = Dataset.from_folder(tmp_path, skip_bad=True)
    for _ in range(2):
        batches = list(dataset.batches(SMALL, batch_size=2))
        assert [len(samples) for samples, _ in batches] == [2, 2]
        assert dataset.bad == [tmp_path / "02.png"]
    assert caplog.text.count("left out") == 1
    assert choose_input_size(dataset) == (224, 320)


def test_nothing_but_corrupt_pictures(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    dataset = Dataset.from_folder(tmp_path, skip_bad=True)
    with pytest.raises(DataError, match="none of the 1 pictures"):
        list(dataset.batches(SMALL))
    with pytest.raises(DataError, match="input size"):
        choose_input_size(dataset)


def test_a_dataset_may_be_empty() -> None:
    dataset = Dataset([])
    assert list(dataset.batches(SMALL)) == []
    with pytest.raises(DataError, match="input size"):
        choose_input_size(dataset)


def test_no_progress_bar_where_stderr_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(Dataset.from_folder(pictures(tmp_path, 2)).batches(SMALL, description="fit"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("count", "fraction", "n_held_out"), [(24, 0.1, 2), (3, 0.1, 1), (2, 0.9, 1), (588, 0.2, 118)]
)
def test_split(count: int, fraction: float, n_held_out: int) -> None:
    dataset = Dataset([Sample(path=Path(f"{i:04}")) for i in range(count)], skip_bad=True)
    rest, held_out = dataset.split(fraction, seed=3)
    assert len(held_out) == n_held_out
    assert sorted([*rest, *held_out], key=lambda sample: sample.path) == list(dataset)
    assert [s.path for s in rest] == sorted(s.path for s in rest)
    assert list(dataset.split(fraction, seed=3)[1]) == list(held_out)
    assert rest.skip_bad and held_out.skip_bad


def test_seeds_split_differently_and_one_picture_not_at_all() -> None:
    dataset = Dataset([Sample(path=Path(f"{i}")) for i in range(50)])
    assert list(dataset.split(0.5, 0)[1]) != list(dataset.split(0.5, 1)[1])
    with pytest.raises(DataError, match="at least 2 pictures"):
        dataset[:1].split(0.5, 0)


def test_content_hash_sees_names_and_contents_but_not_the_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def hashed(folder: str) -> str:
        return content_hash(Dataset.from_folder(tmp_path / folder).digests())

    pictures(tmp_path / "a", 3)
    pictures(tmp_path / "b", 3)
    first = hashed("a")
    assert hashed("b") == first
    picture(tmp_path / "b/01.png", value=7)
    no_text = "\udcff.png" if sys.platform == "linux" else "011.png"
    (tmp_path / "a/01.png").rename(tmp_path / "a" / no_text)
    assert len({first, hashed("a"), hashed("b")}) == 3
    shutil.copy(tmp_path / "b/01.png", tmp_path / "b/copy.png")
    hashed("b")
    assert not caplog.text


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 300), (256, 256)),
        ((1260, 500), (416, 160)),
        ((500, 1260), (160, 416)),
        ((1080, 1920), (192, 352)),
        ((20, 4000), (32, 3616)),
    ],
)
def test_input_size_keeps_the_aspect_ratio(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture(tmp_path / "0.png", size=size)
    assert choose_input_size(Dataset.from_folder(tmp_path)) == expected


def test_input_size_follows_the_median_and_the_area(tmp_path: Path) -> None:
    for index, size in enumerate([(40, 80), (400, 800), (90, 30)]):
        picture(tmp_path / f"{index}.png", size=size)
    dataset = Dataset.from_folder(tmp_path)
    assert choose_input_size(dataset) == (192, 352)
    assert choose_input_size(dataset, area=128 * 128) == (96, 192)


def test_files_that_are_not_read_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.HEIC", "deeper/b.heic", "c.txt", ".hidden.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"only 2 \.heic files, 1 \.txt file: convert"):
        Dataset.from_folder(tmp_path)
    (tmp_path / "d.png").touch()
    assert len(Dataset.from_folder(str(tmp_path))) == 1
    assert "2 .heic files, 1 .txt file" in caplog.text and "convert" in caplog.text


def test_a_folder_of_videos_says_how_pictures_are_taken_from_them(tmp_path: Path) -> None:
    (tmp_path / "a.MP4").write_bytes(b"\0\0\0\x20ftypisom")
    with pytest.raises(DataError, match=r"only 1 \.mp4 file: take .* collect --camera VIDEO"):
        Dataset.from_folder(tmp_path)


def test_pictures_are_left_out_by_path_or_by_the_end_of_it(tmp_path: Path) -> None:
    dataset = Dataset([Sample(path=tmp_path / name) for name in ("a/1.png", "b/1.png", "2.png")])
    left = dataset.without(["b/1.png", str(tmp_path / "2.png")])
    assert [sample.path for sample in left] == [tmp_path / "a/1.png"]
    with pytest.raises(DataError, match="2 are"):
        dataset.without(["1.png"])
    with pytest.raises(DataError, match="none is"):
        dataset.without(["3.png"])


def test_portrait_among_landscape_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(4):
        shape = (40, 80, 3) if index else (80, 40, 3)
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros(shape, np.uint8))
    assert choose_input_size(Dataset.from_folder(tmp_path)) == (192, 352)
    assert "1 of the 4 pictures" in caplog.text and "0.png (40 x 80 pixels)" in caplog.text
