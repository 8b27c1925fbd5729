"""A memory in clusters of equal size, so that a graph can search a few of them."""

import torch
from torch import Tensor

ITERATIONS = 12


def cluster(memory: Tensor, rows: int) -> Tensor:
    """Group a memory (m, d) into clusters that are one regular tensor.

    Lloyd's k-means (1982), where a centre takes at most `rows` rows: each row goes to the nearest
    centre that still has room, and rows whose second choice would cost most go first. If clusters
    were balanced at the end only, the rows without room would lie far from their centre, where no
    search looks for them.

    Returns:
        Indices into the memory, int64 (clusters, rows); where the memory ends, rows stand twice.
    """
    count = -(-len(memory) // rows)
    centres = memory[torch.linspace(0, len(memory) - 1, count).long()]
    for _ in range(ITERATIONS):
        groups = [torch.tensor(group) for group in _fill(torch.cdist(memory, centres), rows)]
        centres = torch.stack([memory[group].mean(dim=0) for group in groups])
    return torch.stack([group[torch.arange(rows) % len(group)] for group in groups])


def _fill(distance: Tensor, rows: int) -> list[list[int]]:
    """Give every row (m, clusters) a place in one of the clusters of `rows` places."""
    squared = distance.square()
    by_distance = squared.argsort(dim=1)
    best = squared.gather(1, by_distance[:, :2])
    regret = best[:, -1] - best[:, 0]
    groups: list[list[int]] = [[] for _ in range(squared.shape[1])]
    for row in regret.argsort(descending=True).tolist():
        for choice in by_distance[row].tolist():
            if len(groups[choice]) < rows:
                groups[choice].append(row)
                break
    return [group for group in groups if group]
