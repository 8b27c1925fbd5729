"""From a coarse grid of distances to an anomaly map at input size, as two small matrix products."""

import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional


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
