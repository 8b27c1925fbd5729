import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from sklearn.random_projection import SparseRandomProjection
from torch import Tensor

from edge_ad.models.coreset import coreset_memory_bytes, greedy_coreset, project
from edge_ad_runtime.errors import EdgeAdError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Small operations on busy cores wait for each other; the results do not depend on it.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def brute_force(features: Tensor, count: int, first: int) -> list[int]:
    nearest = torch.full((len(features),), torch.inf)
    difference = torch.empty_like(features)
    picks = [first]
    for _ in range(count - 1):
        torch.sub(features, features[picks[-1]], out=difference)
        nearest = torch.minimum(nearest, difference.square_().sum(1))
        nearest[picks[-1]] = -1  # so that duplicates are not picked twice
        picks.append(int(nearest.argmax()))
    return picks


def clustered(n: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(40, width, generator=generator)
    label = torch.randint(40, (n,), generator=generator)
    return means[label] + torch.rand(40, 1, generator=generator)[label] * torch.randn(
        n, width, generator=generator
    )


def duplicated(n: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    distinct = torch.randn(n // 10, width, generator=generator)
    return distinct[torch.randint(len(distinct), (n,), generator=generator)]


def lattice(n: int, width: int, seed: int) -> Tensor:
    """Many rows at exactly the same distances."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, (n, width), generator=generator).float()


def far_off(n: int, width: int, seed: int) -> Tensor:
    """Distances below the rounding error of |x|^2 + |c|^2 - 2 x.c."""
    generator = torch.Generator().manual_seed(seed)
    return 1000 + 1e-3 * torch.randn(n, width, generator=generator)


def near_ties(n: int, width: int, seed: int) -> Tensor:
    """Duplicates moved by about one unit in the last place."""
    generator = torch.Generator().manual_seed(seed)
    return duplicated(n, width, seed) * (1 + 1e-7 * torch.randn(n, width, generator=generator))


@pytest.mark.parametrize("seed", range(5))
def test_picks_of_20000_points_are_those_of_brute_force(seed: int) -> None:
    features = clustered(20_000, 64, seed)
    picks = greedy_coreset(features, 1000, seed=seed).picks.tolist()
    assert picks == brute_force(features, 1000, picks[0])


@pytest.mark.parametrize("draw", [duplicated, lattice, far_off, near_ties])
@pytest.mark.parametrize("width", [5, 33])
def test_ties_and_cancellation_change_no_pick(
    draw: Callable[[int, int, int], Tensor], width: int
) -> None:
    features = draw(2000, width, 7)
    picks = greedy_coreset(features, 600, seed=1).picks.tolist()
    assert picks == brute_force(features, 600, picks[0])


def test_every_point_can_be_picked_once() -> None:
    features = duplicated(500, 8, 0)
    picks = greedy_coreset(features, 500).picks.tolist()
    assert sorted(picks) == list(range(500))
    assert picks == brute_force(features, 500, picks[0])


@pytest.mark.parametrize("scale", [1e-15, 1e-22, 1e15])
def test_scale_of_the_features_does_not_matter(scale: float) -> None:
    features = clustered(1000, 16, 3) * scale
    picks = greedy_coreset(features, 200).picks.tolist()
    assert picks == brute_force(features, 200, picks[0])


def test_half_precision_storage_is_exact_on_what_it_stores() -> None:
    features = (clustered(3000, 64, 0) * 500).half()  # squares beyond fp16's 65,504
    picks = greedy_coreset(features, 400).picks.tolist()
    assert picks == brute_force(features.float(), 400, picks[0])


def test_same_seed_gives_same_picks_and_another_seed_another_start() -> None:
    features = clustered(2000, 16, 0)
    picks = greedy_coreset(features, 50, seed=3).picks
    assert torch.equal(picks, greedy_coreset(features, 50, seed=3).picks)
    assert picks.dtype == torch.int64
    assert picks[0] != greedy_coreset(features, 50, seed=4).picks[0]


def test_the_setting_for_matrix_products_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        greedy_coreset(clustered(100, 8, 0), 10)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("count", [0, -1, 11])
def test_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(EdgeAdError, match=f"1 to 10 rows, .* got {count}"):
        greedy_coreset(torch.zeros(10, 2), count)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    features = torch.zeros(10, 2)
    features[3, 1] = value
    with pytest.raises(EdgeAdError, match="finite features"):
        greedy_coreset(features, 2)


def test_one_point() -> None:
    assert greedy_coreset(torch.zeros(1, 3), 1).picks.tolist() == [0]


def test_projection_is_that_of_scikit_learn() -> None:
    features = torch.randn(300, 400, generator=torch.Generator().manual_seed(0))
    expected = SparseRandomProjection(eps=0.9, random_state=5).fit_transform(features.numpy())
    projected = project(features, seed=5)
    torch.testing.assert_close(projected, torch.from_numpy(expected))
    assert torch.equal(projected, project(features, seed=5))


@pytest.mark.parametrize(("n", "width"), [(1, 50), (2, 10), (300, 100)])
def test_projection_without_a_gain_is_skipped_with_a_note(
    n: int, width: int, caplog: pytest.LogCaptureFixture
) -> None:
    features = torch.zeros(n, width)
    with caplog.at_level(logging.INFO):
        assert project(features, seed=0) is features
    assert "no random projection" in caplog.text


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("width", [100, 400])
def test_projection_to_half_precision_keeps_range_and_digits(factor: float, width: int) -> None:
    features = factor * torch.randn(300, width, generator=torch.Generator().manual_seed(0))
    half = project(features, seed=0, dtype=torch.float16)
    full = project(features, seed=0)
    assert half.dtype == torch.float16
    ratio = half.float().norm() / full.norm()
    torch.testing.assert_close(half.float() / ratio, full, rtol=2e-3, atol=1e-5 * factor)


def test_memory_estimate_counts_the_features_once() -> None:
    difference = coreset_memory_bytes(2_000_000, 300, torch.float16) - coreset_memory_bytes(
        1_000_000, 300, torch.float16
    )
    assert 1_000_000 * 600 < difference < 1.1 * 1_000_000 * 600


def test_the_coreset_tells_how_far_each_row_is_from_its_nearest_pick() -> None:
    features = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0))
    picks, nearest, distance = greedy_coreset(features, 300)
    to_picks = torch.cdist(features, features[picks], compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(nearest, to_picks.argmin(dim=1))
    np.testing.assert_allclose(distance, to_picks.amin(dim=1), rtol=1e-5, atol=1e-6)
    assert (distance[picks] == 0).all()
