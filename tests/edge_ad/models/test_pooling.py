"""Pooled covariances: the blend, the left-out distances against refits, and what is chosen."""

from contextlib import closing

import numpy as np
import pytest
import torch

from edge_ad.models import PaDiM
from edge_ad.models import gaussian as gaussian_module
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad.models.pooling import SHARES, coefficients, pooled_rows

GRID, DIMS = (3, 4), 24


def features_of(n: int, *, alike: bool = True) -> torch.Tensor:
    """Correlated features (positions, dims, n); `alike`: one covariance at all positions."""
    generator = torch.Generator().manual_seed(n)
    positions = GRID[0] * GRID[1]
    scales = torch.logspace(-2, 1, DIMS)
    count = 1 if alike else positions
    mixing = torch.linalg.qr(torch.randn(count, DIMS, DIMS, generator=generator)).Q
    samples = scales[:, None] * torch.randn(positions, DIMS, n, generator=generator)
    found: torch.Tensor = mixing @ samples + torch.randn(positions, DIMS, 1, generator=generator)
    return found


def fit(features: torch.Tensor, share: float | None) -> tuple[torch.Tensor, ...]:
    """Return mean_whitened, whitening, left-out distances, and the share."""
    with closing(GaussianStatistics()) as statistics:
        for batch in torch.split(features, 4, dim=2):
            statistics.add(batch)
        chosen = statistics.pool(GRID, share, 0.1)
        mean_whitened, whitening = statistics.whitening(0.1)
        distance = statistics.left_out(mean_whitened, whitening, 0.1)
    return mean_whitened, whitening, distance, torch.tensor(chosen)


def test_a_blend_is_the_weighted_mean_of_the_positions_inside() -> None:
    height, width = GRID
    own = torch.randn(height, width, 2, 2)
    blended = torch.stack(list(pooled_rows(own, GRID, 0.75)))
    for row in range(height):
        for column in range(width):
            window = own[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected = 0.25 * own[row, column] + 0.75 * window.flatten(0, 1).mean(dim=0)
            torch.testing.assert_close(blended[row, column], expected)
    weights = coefficients(GRID, 0.75)
    assert weights.sum(dim=1) == pytest.approx(1.0)
    assert weights[0] == pytest.approx([0, 0, 0, 0, 0.4375, 0.1875, 0, 0.1875, 0.1875])


@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("n", [5, 20, 30, 60])
def test_left_out_distances_equal_those_of_refits(n: int, share: float) -> None:
    features = features_of(n, alike=False)
    ours = fit(features, share)[2]
    for left in range(0, n, 4):
        others = features[:, :, [index for index in range(n) if index != left]]
        mean_whitened, whitening, *_ = fit(others, share)
        whitened = whitening @ features[:, :, left : left + 1] - mean_whitened[:, :, None]
        refitted = whitened.square().sum(dim=1).sqrt()[:, 0]
        torch.testing.assert_close(ours[left], refitted, rtol=2e-3, atol=0)


def test_a_detector_tells_what_it_chose_and_does_as_asked() -> None:
    generator = np.random.default_rng(0)
    frames = list(generator.integers(0, 255, (6, 64, 64, 3), np.uint8))
    detector = PaDiM(weights="none", input_size=(64, 64), device="cpu").fit(frames)
    assert detector.config.pooling in SHARES[1:]  # six pictures do not tell a covariance
    asked = PaDiM(weights="none", input_size=(64, 64), device="cpu", pooling=0.25)
    assert asked.fit(frames).fit(frames[:4]).config.pooling == 0.25


def test_features_on_disk_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(30)
    in_memory = fit(features, None)
    monkeypatch.setattr(gaussian_module, "KEPT_IN_MEMORY", 1000)
    for one, other in zip(fit(features, None), in_memory, strict=True):
        assert torch.equal(one, other)


def test_few_pictures_borrow_where_neighbours_are_alike_and_many_do_not_where_they_differ() -> None:
    assert fit(features_of(8), None)[3] == SHARES[-1]
    assert fit(features_of(40), None)[3] == SHARES[-1]
    assert fit(features_of(300, alike=False), None)[3] == 0.0
    assert fit(features_of(2), None)[3] == SHARES[-1]
