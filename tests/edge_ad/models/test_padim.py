"""PaDiM against the paper's formula, written out slowly in NumPy."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.data import Category, Dataset, Sample, load_category
from edge_ad.models import PaDiM
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad_runtime.errors import DataError, EdgeAdError, NotFittedError

Fitted = tuple[PaDiM, Category]


def direct_mahalanobis(train: np.ndarray, test: np.ndarray, epsilon: float) -> np.ndarray:
    """Eq. 1 and 2 of the paper, position by position; train and test: (positions, dims, n)."""
    positions, dims, n_test = test.shape
    distance = np.zeros((positions, n_test))
    for position in range(positions):
        samples = train[position].astype(np.float64).T
        mean = samples.mean(axis=0)
        covariance = sum(np.outer(x - mean, x - mean) for x in samples) / (len(samples) - 1)
        inverse = np.linalg.inv(covariance + epsilon * np.eye(dims))
        for index in range(n_test):
            offset = test[position, :, index] - mean
            distance[position, index] = np.sqrt(offset @ inverse @ offset)
    return distance


@pytest.mark.parametrize(
    ("n_train", "batch", "offset"),
    [
        (40, 40, 0.0),  # one batch
        (40, 7, 0.0),  # the last batch is smaller
        (5, 2, 0.0),  # fewer samples than dims: epsilon alone makes it regular
        (40, 8, 300.0),  # far from zero: sums of squares would cancel
    ],
)
def test_distance_equals_the_formula(n_train: int, batch: int, offset: float) -> None:
    rng = np.random.default_rng(1)
    train = (rng.normal(0, 1, (6, 12, n_train)) + offset).astype(np.float32)
    test = (rng.normal(0.5, 2, (6, 12, 9)) + offset).astype(np.float32)
    with closing(GaussianStatistics()) as statistics:
        for start in range(0, n_train, batch):
            statistics.add(torch.from_numpy(train[:, :, start : start + batch]))
        mean_whitened, whitening = statistics.whitening(epsilon=0.01)
    whitened = whitening @ torch.from_numpy(test) - mean_whitened[:, :, None]
    ours = whitened.square().sum(dim=1).sqrt().numpy()
    np.testing.assert_allclose(ours, direct_mahalanobis(train, test, 0.01), rtol=2e-3)


def test_one_sample_has_no_covariance() -> None:
    with (
        closing(GaussianStatistics()) as statistics,
        pytest.raises(DataError, match="at least 2 pictures"),
    ):
        statistics.add(torch.zeros(2, 3, 1))
        statistics.whitening(0.01)


@pytest.fixture(scope="module")
def fitted(data_root: Path) -> Fitted:
    category = load_category("plate", data_root)
    return PaDiM(weights="none", input_size=(64, 96)).fit(category.train), category


def test_forward_equals_the_formula_on_features(fitted: Fitted) -> None:
    detector, category = fitted
    batches = category.train.batches(detector.preprocessing, batch_size=64)
    (train_frames,) = [frames for _, frames in batches]
    (test_frames,) = [
        frames for _, frames in category.test.batches(detector.preprocessing, batch_size=64)
    ]
    with torch.inference_mode():
        on_device = torch.from_numpy(test_frames).to(detector.device)
        train = detector.embed(torch.from_numpy(train_frames).to(detector.device)).cpu().numpy()
        test = detector.embed(on_device).cpu().numpy()
        score, anomaly_map = (tensor.cpu() for tensor in detector(on_device))
        distance = torch.from_numpy(
            direct_mahalanobis(train, test, detector.config.epsilon)
        ).float()
        expected = detector.smooth(distance.T.to(detector.device)).cpu()
    np.testing.assert_allclose(anomaly_map.numpy(), expected.numpy(), rtol=5e-3)
    np.testing.assert_allclose(score.numpy(), expected.amax(dim=(1, 2)).numpy(), rtol=5e-3)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_scores_as_its_frames_do(fitted: Fitted, batch: int) -> None:
    detector, category = fitted
    frames = torch.from_numpy(
        next(iter(category.test.batches(detector.preprocessing, batch_size=batch)))[1]
    ).to(detector.device)
    with torch.inference_mode():
        together, alone = detector(frames), [detector(frame[None]) for frame in frames]
    for index, rtol in ((0, 1e-4), (1, 1e-3)):
        apart = torch.cat([one[index] for one in alone])
        torch.testing.assert_close(together[index], apart, rtol=rtol, atol=0)


def test_finds_the_planted_spots(fitted: Fitted) -> None:
    detector, category = fitted
    metrics = detector.evaluate(category.test).metrics
    assert metrics.image_auroc == 1.0
    assert metrics.pixel_auroc is not None and metrics.pixel_auroc > 0.95


def test_same_seed_same_result(data_root: Path) -> None:
    category = load_category("plate", data_root)
    first, second = (
        PaDiM(weights="none", input_size=(64, 96), dims=20, seed=7).fit(category.train)
        for _ in range(2)
    )
    assert torch.equal(first.channels, second.channels)
    assert torch.equal(first.whitening, second.whitening)


@pytest.mark.parametrize("dims", [177, 100_000])
def test_dims_beyond_the_channels_are_refused(dims: int) -> None:
    with pytest.raises(EdgeAdError, match="expected dims from 1 to 176"):
        PaDiM(weights="none", dims=dims)


@pytest.mark.parametrize("dims", ["all", 176, 1])
def test_dims_up_to_the_channels_work(data_root: Path, dims: int | str) -> None:
    category = load_category("plate", data_root)
    detector = PaDiM(weights="none", input_size=(64, 64), dims=dims).fit(category.train)
    assert detector.predict([np.zeros((50, 70, 3), np.uint8)])[0].anomaly_map.shape == (64, 64)


def test_unfitted_and_empty_are_refused() -> None:
    detector = PaDiM(weights="none", input_size=(64, 64))
    with pytest.raises(NotFittedError):
        detector.predict([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(DataError, match="got none"):
        detector.fit(Dataset([]))


def test_one_picture_is_refused(data_root: Path) -> None:
    path = data_root / "plate/train/good/000.png"
    with pytest.raises(DataError, match="at least 2 pictures"):
        PaDiM(weights="none", input_size=(64, 64)).fit(Dataset([Sample(path=path)]))


def test_a_fit_is_not_computed_in_tf32(data_root, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    seen = set()
    detector = PaDiM(weights="none", input_size=(64, 64))
    embed = detector.embed

    def spy(frames: torch.Tensor) -> torch.Tensor:
        seen.add((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return embed(frames)

    monkeypatch.setattr(detector, "embed", spy)
    train = load_category("plate", data_root).train
    detector.fit(train).predict(train[:1])
    assert seen == {(False, "highest")}
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before
