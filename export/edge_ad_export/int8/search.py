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
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad_export.nodes import GraphBuilder

LARGE_TILE, SMALL_TILE = 8, 4
"""Preferred sides of a tile, in patches. The patches of a large one visit so many clusters that
these have to be small; it saves three quarters of the copies of their rows."""

CLUSTERS = 320
"""Clusters of a memory: enough to choose well, and few enough to choose quickly."""

FEWEST_ROWS, MOST_ROWS = 16, 64
"""Rows of a cluster."""

CLUSTERS_A_PATCH = 1 / 300
"""Share of the clusters that a tile visits for each of its patches: 98 % of the patches find their
nearest row there."""

MIN_ROWS, ROWS_A_PATCH = 512, 12
"""Rows that a tile visits at least, in all and for each of its patches. Of a memory of 2,000, 98.7
to 99.8 % of the patches of three classes find their nearest row there."""

CANDIDATES = 2
"""Rows that look nearest to a patch, whose distance is then computed in float32."""

GROUP, GROUPS = 16, 4
"""Where the whole memory is searched: rows of a group, and groups that look nearest."""

ROW_MAX = 63
ROW_ZERO = 64
"""A product of two with a patch's -128 fits into 16 bits: 2 * (63 + 64) * 128 < 32,768. So do two
of a centre with a patch that is shifted by 128: 2 * 63 * 255 < 32,768."""

BASE = 128
DIGIT_MAX = 127

REGISTER = 16
"""ONNX Runtime's products take less time where the number of channels is a multiple of this."""

ITERATIONS = 12
"""Of k-means, when the memory is divided into clusters."""


def tile_size(grid: tuple[int, int], memory_rows: int) -> tuple[int, int]:
    """Return the divisors of the grid's sides that are nearest to the preferred side of a tile."""
    wanted = LARGE_TILE if rows_of_a_cluster(memory_rows) == FEWEST_ROWS else SMALL_TILE
    height, width = (
        min(
            (part for part in range(1, side + 1) if side % part == 0), key=lambda p: abs(p - wanted)
        )
        for side in grid
    )
    return height, width


def from_tiles(
    graph: GraphBuilder, distance: str, grid: tuple[int, int], tile: tuple[int, int]
) -> str:
    """Append the way back from the order of tiles (N, P) to the grid (N, P)."""
    (height, width), (rows, columns) = grid, tile
    shape = [-1, height // rows, width // columns, rows, columns]
    split = graph.node("Reshape", distance, graph.constant(shape))
    by_row = graph.node("Transpose", split, perm=[0, 1, 3, 2, 4])
    return graph.node("Reshape", by_row, graph.constant([-1, height * width]))


class Nearest(NamedTuple):
    """Names of tensors: rows of the search, int64 (N, E), and the distances to them, (N, E)."""

    rows: str
    distance: str


class Search:
    """A memory in float32 and in integers, and the nodes that compare patches with it.

    Its rows lie in the order of their clusters.

    Attributes:
        order: which row of the memory each row of the search is; a few stand twice.
    """

    def __init__(self, graph: GraphBuilder, memory: Tensor, patches: str) -> None:
        """Store the memory and append the rounding of the patches.

        Args:
            graph: what `patches` is computed in.
            memory: (m, C).
            patches: tensor (N, tiles, patches of a tile, C).
        """
        clusters = cluster(memory, rows_of_a_cluster(len(memory)))  # (K, R)
        self.order: NDArray[np.int64] = clusters.flatten().numpy()
        self._graph = graph
        self._patches = patches
        self._clusters, self._rows = clusters.shape
        self._memory = graph.constant(memory[clusters.flatten()].numpy(), "memory")
        self._middle = memory.mean(dim=0)
        self._step = max(float((memory - self._middle).abs().max()), 1e-20) / ROW_MAX
        steps = ((memory - self._middle) / self._step)[clusters]  # (K, R, C)
        rows, centres = steps.round().numpy(), steps.mean(dim=1).round().numpy()
        self._digits = _digits(rows)
        self._blocks = graph.constant(with_norms(rows, self._digits), "memory_blocks")
        signed = with_norms(centres, self._digits).astype(np.int16)
        signed[:, : self._middle.shape[0]] -= ROW_ZERO
        self._centres = graph.constant(signed.T.astype(np.int8), "centres")
        self._centred = self._with_digits()
        self._rounded = self._quantised(self._centred, np.int8(0))

    def gathered(self, rows: str) -> str:
        """Append rows of the search in float32: int64 (...) to (..., C)."""
        return self._graph.node("Gather", self._memory, rows)

    def searched_distance(self, tile: tuple[int, int]) -> str:
        """Append the distance of each patch to the nearest row that its tile visits.

        Returns:
            Name of the distances (N, P), P in the order of tiles.
        """
        graph = self._graph
        columns = graph.node("Transpose", self._rounded, perm=[0, 1, 3, 2])
        visited = self._visited_clusters(tile)
        rows = self._most_similar_rows(columns, visited, math.prod(tile))
        patches = graph.node("Unsqueeze", self._patches, graph.constant([2]))
        squared = self._squared_distance(patches, rows, axis=4)  # (N, tiles, candidates, P)
        nearest = graph.node("ReduceMin", squared, graph.constant([2]), keepdims=0)
        return graph.node("Reshape", graph.node("Sqrt", nearest), graph.constant([0, -1]))

    def chosen(self, index: str) -> str:
        """Append the choice of patches, (N, E, C), by their places in the order of tiles (N, E)."""
        return self._at_places(self._patches, self._middle.shape[0], index)

    def nearest(self, index: str, count: int) -> Nearest:
        """Append the comparison of a few patches with the whole memory.

        The integers find the groups with the most similar rows, and all rows of these are compared
        in float32.

        Args:
            index: places of the patches in the order of tiles, int64 (N, E).
            count: E.
        """
        graph = self._graph
        rounded = self._at_places(self._rounded, self._middle.shape[0] + self._digits, index)
        columns = graph.node("Transpose", rounded, perm=[0, 2, 1])
        columns = graph.node("Unsqueeze", columns, graph.constant([1]))
        similarity = graph.node("MatMulInteger", self._blocks, columns)  # (N, K, R, E)
        groups = graph.node("Reshape", similarity, graph.constant([0, -1, GROUP, count]))
        best = graph.node("ReduceMax", groups, graph.constant([2]), keepdims=0)
        wanted = graph.constant([min(GROUPS, len(self.order) // GROUP)])
        found = graph.nodes("TopK", (best, wanted), 2, axis=1, sorted=0)[1]  # (N, groups, E)
        first = graph.node(
            "Mul", graph.node("Transpose", found, perm=[0, 2, 1]), graph.constant(GROUP)
        )
        each = graph.node("Unsqueeze", first, graph.constant([3]))
        each = graph.node("Add", each, graph.constant(np.arange(GROUP)))
        rows = graph.node("Reshape", each, graph.constant([0, 0, -1]))
        patches = graph.node("Unsqueeze", self.chosen(index), graph.constant([2]))
        squared = self._squared_distance(patches, rows, axis=3)
        least, place = graph.nodes("TopK", (squared, graph.constant([1])), 2, axis=2, largest=0)
        last = graph.constant([2])
        return Nearest(
            graph.node("Squeeze", graph.node("GatherElements", rows, place, axis=2), last),
            graph.node("Squeeze", graph.node("Sqrt", least), last),
        )

    def _with_digits(self) -> str:
        """Append the centring of the patches, and what stands at the digits: (..., C + D)."""
        graph = self._graph
        wider = graph.node("Pad", self._patches, graph.constant([0] * 7 + [self._digits]))
        places = np.array([-BASE] * (self._digits - 1) + [-1], np.float32)
        middle = np.concatenate([self._middle.numpy(), -np.float32(self._step) * places])
        return graph.node("Sub", wider, graph.constant(middle, "memory_mean"))

    def _quantised(self, centred: str, zero: np.int8 | np.uint8) -> str:
        """Append the rounding to steps, to the type of the zero."""
        step, zero_point = self._graph.scalar(self._step), self._graph.constant(np.array(zero))
        return self._graph.node("QuantizeLinear", centred, step, zero_point)

    def _at_places(self, patches: str, channels: int, index: str) -> str:
        """Append the choice of patches (N, tiles, P, channels): (N, E, channels)."""
        graph = self._graph
        flat = graph.node("Reshape", patches, graph.constant([0, -1, channels]))
        places = graph.node("Unsqueeze", index, graph.constant([2]))
        return graph.node("GatherND", flat, places, batch_dims=1)

    def _squared_distance(self, patches: str, rows: str, *, axis: int) -> str:
        """Append the squared distances of patches (..., C) to rows (...); C is the axis."""
        graph = self._graph
        difference = graph.node("Sub", patches, self.gathered(rows))
        # A product and a sum take less time than a ReduceSumSquare.
        squares = graph.node("Mul", difference, difference)
        return graph.node("ReduceSum", squares, graph.constant([axis]), keepdims=0)

    def _visited_clusters(self, tile: tuple[int, int]) -> str:
        """Append the choice of clusters: int64 (N, tiles, V).

        A patch's own nearest cluster has a slack of 0; a tile takes those of the smallest slack.
        Of a large tile, only the patches on the black squares of a chessboard are asked: each other
        one lies between four of them.
        """
        graph = self._graph
        asked = self._centred
        if self._rows == FEWEST_ROWS:
            black = np.flatnonzero(np.indices(tile).sum(axis=0).ravel() % 2 == 0)
            asked = graph.node("Gather", asked, graph.constant(black), axis=2)
        # One product for all tiles, with the centres as the signed factor.
        zero = np.uint8(BASE)
        rounded = self._quantised(asked, zero)
        similarity = graph.node(
            "MatMulInteger", rounded, self._centres, graph.constant(np.array(zero))
        )  # (N, tiles, patches that are asked, K)
        best = graph.node("ReduceMax", similarity, graph.constant([3]), keepdims=1)
        slack = graph.node("Sub", best, similarity)
        of_tile = graph.node("ReduceMin", slack, graph.constant([2]), keepdims=0)
        patches = math.prod(tile)
        least = math.ceil(max(MIN_ROWS, ROWS_A_PATCH * patches) / self._rows)
        wanted = max(least, round(CLUSTERS_A_PATCH * patches * self._clusters))
        visited = graph.constant([min(self._clusters, wanted)])
        return graph.nodes("TopK", (of_tile, visited), 2, axis=2, largest=0, sorted=0)[1]

    def _most_similar_rows(self, columns: str, visited: str, patches: int) -> str:
        """Append the rows of the search that look nearest: int64 (N, tiles, candidates, P).

        They are looked for in the cluster that holds the most similar row of all.
        """
        graph = self._graph
        similarity = self._similarity(columns, visited, patches)  # (N, tiles, V, R, P)
        by_cluster = graph.node("ReduceMax", similarity, graph.constant([3]), keepdims=0)
        best = graph.node("ArgMax", by_cluster, axis=2, keepdims=0)  # (N, tiles, P)
        every_row = graph.constant(np.zeros((self._rows, 1), np.int64))
        place = graph.node("Unsqueeze", best, graph.constant([2, 3]))
        in_best = graph.node(
            "GatherElements", similarity, graph.node("Add", place, every_row), axis=2
        )  # (N, tiles, 1, R, P)
        count = graph.constant([CANDIDATES])
        similar = graph.nodes("TopK", (in_best, count), 2, axis=3, sorted=0)[1]
        chosen = graph.node("GatherElements", visited, best, axis=2)
        first = graph.node("Mul", chosen, graph.constant(self._rows))
        return graph.node(
            "Add",
            graph.node("Unsqueeze", first, graph.constant([2])),
            graph.node("Squeeze", similar, graph.constant([2])),
        )

    def _similarity(self, columns: str, visited: str, patches: int) -> str:
        """Append how near each patch is to each visited row: (N, tiles, V, R, P).

        One product a tile: the visited clusters lie one below the other.
        """
        graph = self._graph
        below = graph.constant([0, 0, -1, self._middle.shape[0] + self._digits])
        visited_rows = graph.node("Reshape", graph.node("Gather", self._blocks, visited), below)
        similarity = graph.node("MatMulInteger", visited_rows, columns)  # (N, tiles, V R, P)
        return graph.node("Reshape", similarity, graph.constant([0, 0, -1, self._rows, patches]))


def _digits(rows: NDArray[np.float32]) -> int:
    """Return how many digits the norms of rows (K, R, C) have, zeros up to whole registers too."""
    highest = int(_half_norms(rows).max()) // BASE
    channels, digits = int(rows.shape[-1]), 1 + max(1, math.ceil(highest / DIGIT_MAX))
    return digits + -(channels + digits) % REGISTER


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
