"""To the grid of patches and back: feature maps of several strides in, an anomaly map out."""

from collections.abc import Sequence

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional


def embed_on_grid(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Concatenate feature maps (N, C_i, h_i, w_i) on one grid: (N, sum C_i, grid height, width).

    Finer maps are averaged, coarser ones interpolated bilinearly.
    """
    return torch.cat([_to_grid(one, grid) for one in maps], dim=1)


def local_average(maps: Sequence[Tensor], patch_size: int) -> list[Tensor]:
    """Average each map over windows of patch_size x patch_size, stride 1 (PatchCore, eq. 2).

    Beyond the border stand zeros. An odd size keeps the shape; 1 changes nothing.
    """
    if patch_size == 1:
        return list(maps)
    return [functional.avg_pool2d(one, patch_size, 1, patch_size // 2) for one in maps]


def _to_grid(one: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = one.shape[2:]
    if (height, width) == grid:
        return one
    if height > grid[0]:
        # Input sizes are multiples of every stride, so the window is whole.
        return functional.avg_pool2d(one, (height // grid[0], width // grid[1]))
    return functional.interpolate(one, size=grid, mode="bilinear", align_corners=False)


class Smoothing(nn.Module):
    """Bilinear upsampling followed by a Gaussian blur, both separable and linear.

    Each axis is one constant matrix, blur @ upsample, so that the map is `rows @ grid @ columns^T`:
    at 256 x 256 a hundredth of the operations of a 33 x 33 convolution, and the same numbers as
    upsampling and `scipy.ndimage.gaussian_filter` (borders mirrored, cut off at 4 sigma).
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, grid: tuple[int, int], size: tuple[int, int], sigma: float) -> None:
        """Prepare the matrices for a grid and an output size, both (height, width)."""
        super().__init__()
        self.register_buffer("rows", _axis_matrix(grid[0], size[0], sigma), persistent=False)
        self.register_buffer("columns", _axis_matrix(grid[1], size[1], sigma), persistent=False)

    def forward(self, grid: Tensor) -> Tensor:
        """Turn (N, grid height, grid width) into (N, height, width)."""
        smoothed: Tensor = self.rows @ grid @ self.columns.T
        return smoothed


def _axis_matrix(length: int, size: int, sigma: float) -> Tensor:
    """One axis: (size, length), rows sum to 1. `sigma` in pixels of the output; 0: no blur."""
    impulses = torch.eye(length, dtype=torch.float64)
    upsampled = functional.interpolate(
        impulses[None], size=size, mode="linear", align_corners=False
    )[0].T
    if sigma > 0:
        upsampled = torch.from_numpy(gaussian_filter1d(upsampled.numpy(), sigma, axis=0))
    return upsampled.float()
