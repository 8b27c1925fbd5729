"""`fit`, `predict` and `evaluate` take what people have, and refuse what they cannot score."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from edge_ad.data import Dataset, as_dataset, load_category
from edge_ad.models import PaDiM
from edge_ad.models.machine import telling_when_memory_ends
from edge_ad_runtime import list_pictures, read_frame
from edge_ad_runtime.errors import DataError, EdgeAdError


def fit(pictures: object) -> PaDiM:
    detector = PaDiM(weights="none", input_size=(32, 32), layers=["stage2"], dims=8)
    return detector.fit(pictures)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "str", "paths", "list", "array", "batches", "loader"])
def test_the_same_pictures_in_any_form_give_the_same_fit(data_root: Path, kind: str) -> None:
    folder = data_root / "plate/train/good"
    paths = list_pictures(folder)
    frames = [read_frame(path) for path in paths]
    tensors = TensorDataset(torch.from_numpy(np.stack(frames)), torch.zeros(len(frames)))
    forms = {
        "folder": folder,
        "str": str(folder),
        "paths": map(str, paths),
        "list": frames,
        "array": np.stack(frames),
        "batches": iter([np.stack(frames[:10]), np.stack(frames[10:])]),
        "loader": DataLoader(tensors, batch_size=7),
    }
    expected = fit(Dataset.from_folder(folder))
    found = fit(forms[kind])
    assert found.good is not None and expected.good is not None
    np.testing.assert_array_equal(found.good.scores, expected.good.scores)


def test_a_torch_dataset_that_only_counts_and_indexes(data_root: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)

    class Three(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return frame, index

    assert len(as_dataset(Three())) == 3  # type: ignore[arg-type]


def test_evaluate_takes_a_folder(data_root: Path) -> None:
    category = load_category("plate", data_root)
    detector = fit(category.train)
    evaluation = detector.evaluate(str(data_root / "plate/test/good"))
    assert evaluation.metrics.n_good == 6 and evaluation.metrics.image_auroc is None


def test_of_a_whole_class_folder_only_good_parts_are_learnt_from(data_root: Path) -> None:
    detector = fit(data_root / "plate")
    assert detector.fitted is not None and len(detector.fitted) == 24
    for folder in (data_root / "plate", data_root / "plate/test"):
        metrics = detector.evaluate(folder).metrics
        assert (metrics.n_good, metrics.n_anomalous) == (6, 6)
        assert metrics.image_auroc is not None and metrics.pixel_auroc is not None
    with pytest.raises(DataError, match="not clear what to learn from"):
        fit(data_root / "plate/test")


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        np.zeros((40, 40, 3), np.uint16),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
    ],
)
def test_a_frame_of_another_kind_is_refused(data_root: Path, frame: np.ndarray) -> None:
    detector = fit(data_root / "plate/train/good")
    with pytest.raises(DataError, match="uint8 of H x W x 3"):
        detector.predict([frame])
    with pytest.raises(DataError, match="uint8 of H x W x 3"):
        fit([np.zeros((40, 40, 3), np.uint8), frame])
    assert detector.predict([]) == []


def test_a_pillow_image_is_not_taken_for_a_frame(data_root: Path) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (40, 40))
    with pytest.raises(DataError, match="Pillow, which is RGB"):
        fit([image] * 3)


def test_a_prediction_unpacks_as_in_the_readme(data_root: Path) -> None:
    detector = fit(data_root / "plate/train/good")
    score, anomaly_map = detector.predict([np.zeros((40, 50, 3), np.uint8)])[0]
    assert isinstance(score, float) and anomaly_map.shape == (32, 32)


@pytest.mark.parametrize("data", [[], 3, "nowhere", [None]])
def test_what_holds_no_pictures_is_refused(data: object) -> None:
    with pytest.raises(DataError, match="expected"):
        as_dataset(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: np.empty(2**50)])
def test_too_little_memory_is_one_sentence(allocate: Callable[[], object]) -> None:
    with (
        pytest.raises(EdgeAdError, match="memory for frames of 64x96 pixels: choose a smaller"),
        telling_when_memory_ends((64, 96), torch.device("cpu")),
    ):
        allocate()


def test_another_error_than_too_little_memory_stays_what_it_is() -> None:
    with (
        pytest.raises(RuntimeError, match=r"size mismatch|shape"),
        telling_when_memory_ends((64, 96), torch.device("cpu")),
    ):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_one_tensor_is_one_frame(data_root: Path) -> None:
    frame = read_frame(data_root / "plate/train/good/000.png")
    (sample,) = dataset = as_dataset(torch.from_numpy(frame))
    np.testing.assert_array_equal(dataset.load(sample), frame)
