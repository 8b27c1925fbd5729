"""PatchCore against the paper's formulas, written out slowly in NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.data import Category, Dataset, load_category
from edge_ad.models import PatchCore
from edge_ad.models.memory_bank import image_score, nearest_distance
from edge_ad_runtime.errors import EdgeAdError

Array = np.ndarray


def direct_score(patches: Array, memory: Array, neighbours: int) -> float:
    """Eq. 5 to 7 of the paper for one image; patches (P, C), memory (M, C)."""
    distances = np.array([[np.linalg.norm(p - m) for m in memory] for p in patches])
    nearest = distances.min(axis=1)
    star = int(nearest.argmax())  # m_test*
    row = int(distances[star].argmin())  # m*
    if neighbours == 1:
        return float(nearest[star])
    around = np.argsort([np.linalg.norm(memory[row] - m) for m in memory])[:neighbours]
    exponents = np.exp([np.linalg.norm(patches[star] - memory[m]) for m in around])
    weight = 1 - np.exp(nearest[star]) / exponents.sum()
    return float(weight * nearest[star])


@pytest.mark.parametrize("neighbours", [1, 2, 3, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_score_equals_the_formula(neighbours: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(40, 6, generator=generator)
    patches = torch.randn(5, 12, 6, generator=generator)
    ours = image_score(patches, nearest_distance(patches, memory), memory, neighbours)
    expected = [direct_score(p.numpy(), memory.numpy(), neighbours) for p in patches]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5)


def test_nearest_distance_equals_brute_force_over_several_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 30, 8, generator=generator)
    memory = torch.randn(9000, 8, generator=generator)
    expected = torch.cdist(points, memory, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=2)
    np.testing.assert_allclose(nearest_distance(points, memory), expected, rtol=1e-4)


def test_nearest_distance_survives_norms_far_above_it() -> None:
    generator = torch.Generator().manual_seed(0)
    points = 100 + torch.randn(30, 8, generator=generator)
    memory = 100 + torch.randn(200, 8, generator=generator)
    expected = torch.cdist(points.double(), memory.double()).amin(dim=1)
    np.testing.assert_allclose(nearest_distance(points, memory), expected, rtol=1e-5)


@pytest.fixture(scope="module")
def category(data_root: Path) -> Category:
    return load_category("plate", data_root)


@pytest.fixture(scope="module")
def fitted(category: Category) -> PatchCore:
    return PatchCore(input_size=(64, 96)).fit(category.train)


def test_memory_is_a_tenth_of_the_training_patches(fitted: PatchCore, category: Category) -> None:
    frames = np.concatenate(
        [batch for _, batch in category.train.batches(fitted.preprocessing, batch_size=64)]
    )
    with torch.inference_mode():
        patches = fitted.embed(torch.from_numpy(frames).to(fitted.device)).flatten(0, 1)
    assert fitted.memory.shape == (len(patches) // 10, 152)
    assert nearest_distance(fitted.memory, patches).max() < 0.05


def test_finds_the_planted_spots(fitted: PatchCore, category: Category) -> None:
    metrics = fitted.evaluate(category.test).metrics
    assert metrics.image_auroc == 1.0
    assert metrics.pixel_auroc is not None and metrics.pixel_auroc > 0.99


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_scores_as_its_frames_do(fitted: PatchCore, category: Category, batch: int) -> None:
    frames = torch.from_numpy(
        next(iter(category.test.batches(fitted.preprocessing, batch_size=batch)))[1]
    ).to(fitted.device)
    with torch.inference_mode():
        together, alone = fitted(frames), [fitted(frame[None]) for frame in frames]
    for index in (0, 1):
        apart = torch.cat([one[index] for one in alone])
        torch.testing.assert_close(together[index], apart, rtol=1e-3, atol=0)


def test_same_seed_same_memory(category: Category) -> None:
    first, second = (
        PatchCore(weights="none", input_size=(64, 64), coreset=50, seed=3).fit(category.train)
        for _ in range(2)
    )
    assert torch.equal(first.memory, second.memory)
    assert first.memory.shape[0] == 50


def test_one_picture_and_fewer_rows_than_neighbours(category: Category) -> None:
    """A memory smaller than `neighbours` uses all of it; one picture is enough to fit."""
    one = Dataset(category.train[:1])
    detector = PatchCore(weights="none", input_size=(64, 64), coreset=4).fit(one)
    assert detector.memory.shape[0] == 4
    (prediction,) = detector.predict([np.full((64, 64, 3), 255, np.uint8)])
    assert np.isfinite(prediction.score) and prediction.score > 0


def test_a_share_that_keeps_nothing_keeps_one(category: Category) -> None:
    one = Dataset(category.train[:1])
    detector = PatchCore(weights="none", input_size=(64, 64), coreset=0.001).fit(one)
    assert detector.memory.shape[0] == 1


def test_a_count_beyond_the_patches_keeps_all(category: Category) -> None:
    one = Dataset(category.train[:1])
    detector = PatchCore(weights="none", input_size=(64, 64), coreset=100_000).fit(one)
    assert detector.memory.shape[0] == 64


@pytest.mark.parametrize("coreset", [0, -1, 1.5, 0.0])
def test_impossible_coresets_are_refused(coreset: float) -> None:
    with pytest.raises(EdgeAdError, match=r"a share above 0 and up to 1\.0"):
        PatchCore(weights="none", coreset=coreset)


def test_no_neighbour_is_refused() -> None:
    with pytest.raises(EdgeAdError, match="1 or more as neighbours"):
        PatchCore(weights="none", neighbours=0)
