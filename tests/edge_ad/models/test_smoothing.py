"""The two matrices must equal upsampling and blurring done the long way."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from edge_ad.models.grid import Smoothing


@pytest.mark.parametrize(
    ("grid", "size", "sigma"),
    [
        ((8, 8), (64, 64), 4.0),
        ((5, 13), (160, 416), 4.0),  # not square
        ((4, 4), (32, 32), 0.0),  # no blur
        ((32, 32), (256, 256), 1.5),
    ],
)
def test_equals_upsampling_then_gaussian_filter(
    grid: tuple[int, int], size: tuple[int, int], sigma: float
) -> None:
    coarse = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0))
    upsampled = functional.interpolate(
        coarse[:, None], size=size, mode="bilinear", align_corners=False
    )[:, 0]
    expected = np.stack(
        [gaussian_filter(one, sigma) if sigma else one for one in upsampled.numpy()]
    )
    np.testing.assert_allclose(Smoothing(grid, size, sigma)(coarse).numpy(), expected, atol=2e-6)


def test_a_flat_map_stays_flat_up_to_the_border() -> None:
    smoothed = Smoothing((8, 8), (64, 64), 4.0)(torch.full((1, 8, 8), 3.0))
    np.testing.assert_allclose(smoothed.numpy(), 3.0, rtol=1e-6)
