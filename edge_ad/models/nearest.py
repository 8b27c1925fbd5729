"""Euclidean distances by one matrix product; the full matrix never exists."""

import torch
from torch import Tensor

BLOCK_ROWS = 4096
"""Memory rows compared at a time: bounds the intermediate to patches x 4096."""


def squared_distances(points: Tensor, memory: Tensor) -> Tensor:
    """Return |x - m|^2 for points (n, d) and memory (m, d): (n, m), up to a constant per point.

    |x|^2 is left out, since it does not change which row is nearest.
    """
    return memory.square().sum(dim=1) - 2 * points @ memory.T


def nearest_distance(points: Tensor, memory: Tensor) -> Tensor:
    """Return the distance of points (..., d) to their nearest row of the memory (m, d): (...)."""
    flat = points.flatten(0, -2)
    nearest = torch.stack(
        [squared_distances(flat, block).amin(dim=1) for block in torch.split(memory, BLOCK_ROWS)]
    ).amin(dim=0)
    squared = nearest + flat.square().sum(dim=1)
    return squared.clamp(min=0).sqrt().reshape(points.shape[:-1])
