"""Feature maps of several strides, averaged locally and brought to one grid."""

from collections.abc import Sequence

import torch
from torch import Tensor
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
