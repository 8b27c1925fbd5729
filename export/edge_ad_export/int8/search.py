"""A memory of patches searched in 8-bit integers, and only a part of it.

Neighbouring patches look alike, so each tile of the grid shares a search: the memory lies in
clusters of equal size, and a tile visits those that are nearest to one of its patches. The integers
only say which rows are nearest; the distance to these is computed in float32. A row that the search
misses therefore makes a distance larger, never smaller.

Memory and patches are rounded to one step, so that in units of it |x - m|^2 / 2 =
|x|^2 / 2 - (x.m - |m|^2 / 2), whose last part is an integer, the similarity. Rows have 7 bits and
are the unsigned factor of MatMulInteger (see `quantise`), patches have 8 and reach twice as far as
the memory; a patch that is farther still is cut off, far from every row.

The product takes |m|^2 / 2 off by itself: it stands in further channels of the rows, as digits to
the base of 128, and the patches have -128 and -1 there.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad_export.nodes import GraphBuilder

TILE = 4
"""Preferred side of a tile, in patches."""

CLUSTERS = 128
"""Clusters of a small memory: enough to choose well, and few enough to choose quickly."""

FEWEST_ROWS, MOST_ROWS = 16, 64
"""Rows of a cluster."""

VISITED = 0.05
"""Share of the clusters that a tile visits: 98 % of the patches find their nearest row there."""

MIN_ROWS = 512
"""Rows that a tile visits at least. Of a memory of 2,000, 98.7 to 99.9 % of the patches of three
classes find their nearest row there."""

CANDIDATES = 2
"""Rows that look nearest to a patch, whose distance is then computed in float32."""

ROW_MAX = 63
ROW_ZERO = 64
"""A product of two with a patch's -128 fits into 16 bits: 2 * (63 + 64) * 128 < 32,768."""

BASE = 128
DIGIT_MAX = 127

ITERATIONS = 12
"""Of k-means, when the memory is divided into clusters."""


@dataclass(frozen=True)
class Memory:
    """The rows of a memory (m, C), and the name of their tensor in the graph."""

    rows: Tensor
    tensor: str

    @classmethod
    def of(cls, graph: GraphBuilder, rows: Tensor) -> "Memory":
        """Store the rows in the graph."""
        return cls(rows, graph.constant(rows.numpy(), "memory"))


def tile_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the divisors of the grid's sides that are nearest to `TILE`."""
    height, width = (
        min((part for part in range(1, side + 1) if side % part == 0), key=lambda p: abs(p - TILE))
        for side in grid
    )
    return height, width


def searched_distance(
    graph: GraphBuilder, memory: Memory, patches: str, grid: tuple[int, int]
) -> str:
    """Append the distance of each patch to the nearest row that its tile visits.

    Args:
        graph: what `patches` is computed in.
        memory: searched.
        patches: tensor (N, tiles, patches of a tile, C).
        grid: height and width of the grid of patches.

    Returns:
        Name of the distances (N, P), P in the order of tiles.
    """
    search = _Search(graph, memory)
    columns = search.quantised(patches)
    visited = search.visited_clusters(columns)
    rows = search.most_similar_rows(columns, visited, math.prod(tile_size(grid)))
    found = graph.node("Gather", memory.tensor, rows)  # (N, tiles, candidates, P, C)
    difference = graph.node("Sub", graph.node("Unsqueeze", patches, graph.constant([2])), found)
    # A product and a sum take less time than a ReduceL2.
    squares = graph.node("Mul", difference, difference)
    squared = graph.node("ReduceSum", squares, graph.constant([4]), keepdims=0)
    nearest = graph.node("ReduceMin", squared, graph.constant([2]), keepdims=0)
    return graph.node("Reshape", graph.node("Sqrt", nearest), graph.constant([0, -1]))


def from_tiles(graph: GraphBuilder, distance: str, grid: tuple[int, int]) -> str:
    """Append the way back from the order of tiles (N, P) to the grid (N, P)."""
    (height, width), (rows, columns) = grid, tile_size(grid)
    shape = [-1, height // rows, width // columns, rows, columns]
    split = graph.node("Reshape", distance, graph.constant(shape))
    by_row = graph.node("Transpose", split, perm=[0, 1, 3, 2, 4])
    return graph.node("Reshape", by_row, graph.constant([-1, height * width]))


class ExactPatches:
    """Some patches of each frame, compared with the whole memory in float32.

    Attributes:
        patches: tensor (N, E, C).
        rows: their nearest rows in the memory, int64 (N, E).
        distance: to these rows, (N, E).
    """

    def __init__(self, graph: GraphBuilder, memory: Memory, patches: str, index: str) -> None:
        """Append the comparison.

        Args:
            graph: what `patches` and `index` are computed in.
            memory: searched whole.
            patches: tensor (N, tiles, patches of a tile, C).
            index: places of the wanted patches in the order of tiles, int64 (N, E).
        """
        channels = memory.rows.shape[1]
        flat = graph.node("Reshape", patches, graph.constant([0, -1, channels]))
        places = graph.node("Unsqueeze", index, graph.constant([2]))
        self.patches = graph.node("GatherND", flat, places, batch_dims=1)
        each = graph.node("Reshape", self.patches, graph.constant([-1, channels]))
        norms = graph.constant(memory.rows.square().sum(dim=1).numpy(), "memory_squares")
        squared = graph.node("Gemm", each, memory.tensor, norms, alpha=-2.0, transB=1)
        nearest = graph.node("ArgMin", squared, axis=1, keepdims=0)
        self.rows = graph.node("Reshape", nearest, graph.node("Shape", index))
        difference = graph.node("Sub", self.patches, graph.node("Gather", memory.tensor, self.rows))
        self.distance = graph.node("ReduceL2", difference, graph.constant([2]), keepdims=0)


class _Search:
    """The integers of a memory, and the nodes that compare patches with them."""

    def __init__(self, graph: GraphBuilder, memory: Memory) -> None:
        self._graph = graph
        self._blocks = cluster(memory.rows, rows_of_a_cluster(len(memory.rows)))  # (K, R)
        self._middle = memory.rows.mean(dim=0)
        centred = memory.rows - self._middle
        self._step = max(float(centred.abs().max()), 1e-20) / ROW_MAX
        grouped = (centred / self._step)[self._blocks]  # (K, R, C)
        rows = grouped.round().numpy()
        highest = int(_half_norms(rows).max()) // BASE
        self._digits = 1 + max(1, math.ceil(highest / DIGIT_MAX))
        self._rows = with_norms(rows, self._digits)
        self._centres = with_norms(grouped.mean(dim=1).round().numpy(), self._digits)

    def quantised(self, patches: str) -> str:
        """Append the rounding of patches (N, tiles, P, C) to columns int8 (N, tiles, C + D, P)."""
        graph = self._graph
        wider = graph.node("Pad", patches, graph.constant([0] * 7 + [self._digits]))
        places = np.array([-BASE] * (self._digits - 1) + [-1], np.float32)
        middle = np.concatenate([self._middle.numpy(), -np.float32(self._step) * places])
        centred = graph.node("Sub", wider, graph.constant(middle, "memory_mean"))
        zero = graph.constant(np.array(0, np.int8))
        rounded = graph.node("QuantizeLinear", centred, graph.scalar(self._step), zero)
        return graph.node("Transpose", rounded, perm=[0, 1, 3, 2])

    def visited_clusters(self, columns: str) -> str:
        """Append the choice of clusters: int64 (N, tiles, V).

        A patch's own nearest cluster has a slack of 0; a tile takes those of the smallest slack.
        """
        graph = self._graph
        centres = graph.constant(self._centres, "centres")
        similarity = graph.node("MatMulInteger", centres, columns)  # (N, tiles, K, P)
        best = graph.node("ReduceMax", similarity, graph.constant([2]), keepdims=1)
        slack = graph.node("Sub", best, similarity)
        of_tile = graph.node("ReduceMin", slack, graph.constant([3]), keepdims=0)
        count, rows = self._blocks.shape
        wanted = max(math.ceil(MIN_ROWS / rows), round(VISITED * count))
        visited = graph.constant([min(count, wanted)])
        return graph.nodes("TopK", (of_tile, visited), 2, axis=2, largest=0, sorted=0)[1]

    def most_similar_rows(self, columns: str, visited: str, patches: int) -> str:
        """Append the rows of the memory that look nearest: int64 (N, tiles, candidates, P).

        They are looked for in the cluster that holds the most similar row of all.
        """
        graph = self._graph
        rows = self._blocks.shape[1]
        similarity = self._similarity(columns, visited, patches)  # (N, tiles, V, R, P)
        by_cluster = graph.node("ReduceMax", similarity, graph.constant([3]), keepdims=0)
        best = graph.node("ArgMax", by_cluster, axis=2, keepdims=0)  # (N, tiles, P)
        every_row = graph.constant(np.zeros((rows, 1), np.int64))
        place = graph.node("Unsqueeze", best, graph.constant([2, 3]))
        in_best = graph.node(
            "GatherElements", similarity, graph.node("Add", place, every_row), axis=2
        )  # (N, tiles, 1, R, P)
        count = graph.constant([min(CANDIDATES, rows)])
        similar = graph.nodes("TopK", (in_best, count), 2, axis=3, sorted=0)[1]
        chosen = graph.node("GatherElements", visited, best, axis=2)
        first = graph.node("Mul", chosen, graph.constant(rows))
        row = graph.node(
            "Add",
            graph.node("Unsqueeze", first, graph.constant([2])),
            graph.node("Squeeze", similar, graph.constant([2])),
        )
        order = graph.constant(self._blocks.flatten().numpy(), "memory_order")
        return graph.node("Gather", order, row)

    def _similarity(self, columns: str, visited: str, patches: int) -> str:
        """Append how near each patch is to each visited row: (N, tiles, V, R, P).

        One product a tile: the visited clusters lie one below the other.
        """
        graph = self._graph
        rows, channels = self._rows.shape[1:]
        blocks = graph.constant(self._rows, "memory_blocks")
        below = graph.constant([0, 0, -1, channels])
        visited_rows = graph.node("Reshape", graph.node("Gather", blocks, visited), below)
        similarity = graph.node("MatMulInteger", visited_rows, columns)  # (N, tiles, V R, P)
        return graph.node("Reshape", similarity, graph.constant([0, 0, -1, rows, patches]))


def rows_of_a_cluster(memory_rows: int) -> int:
    """Return the power of two that makes about `CLUSTERS` clusters, from 16 to 64."""
    wanted = 1 << round(math.log2(max(memory_rows / CLUSTERS, 1)))
    return min(max(wanted, FEWEST_ROWS), MOST_ROWS)


def with_norms(integers: NDArray[np.float32], digits: int) -> NDArray[np.uint8]:
    """Shift rows (..., C) to unsigned and append the digits of half their squared norms.

    The shift adds the same to all similarities of a patch. Every digit but the last counts `BASE`.
    """
    high, low = np.divmod(_half_norms(integers), BASE)
    appended = []
    for _ in range(digits - 1):
        digit = np.minimum(high, DIGIT_MAX)
        appended.append(digit)
        high = high - digit
    unsigned = [integers + ROW_ZERO, np.stack([*appended, low], axis=-1)]
    return np.concatenate(unsigned, axis=-1).astype(np.uint8)


def _half_norms(integers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return |m|^2 / 2 over the last axis, rounded."""
    halves: NDArray[np.int64] = np.rint(np.square(integers).sum(axis=-1) / 2).astype(np.int64)
    return halves


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
