"""PatchCore in 8-bit integers, searching a part of the memory; the score is exact all the same.

Neighbouring patches look alike, so each tile of the grid shares a search: the memory lies in
clusters of equal size, and a tile visits those that are nearest to one of its patches. The integers
only say which rows are nearest: the distance to them is computed in float32. So what is missed
makes a distance larger, never smaller. The patches that look farthest are then compared with the
whole memory in float32: the score is the largest of all true distances, unless a patch that looked
nearer than all of these is farther.
"""

import math
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import PatchCore
from edge_ad.models.nearest import squared_distances
from edge_ad.models.patchcore import PATCH_SIZE
from edge_ad_export.int8.clusters import cluster
from edge_ad_export.int8.features import GridFeatures
from edge_ad_export.int8.finish import finish
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

TILE = 4
"""Wished-for side of a tile, in patches."""

VISITED = 0.05
"""Share of the clusters that a tile visits: 98 % of the patches find their nearest row there."""

MIN_ROWS = 1024
"""Rows that a tile visits at least: a small memory is searched whole, or nearly."""

CANDIDATES = 2
"""Rows that look nearest to a patch, whose distance is then computed in float32."""

EXACT = 16
"""Patches of a frame that are compared with the whole memory in float32."""

MEMORY_MAX = 63
ZERO = 128
"""Memory and patches share a step; 2 * 255 * 63 fits into 16 bits (see `quantise`)."""

ROWS_AT_ONCE = 1024


class _Tiles(nn.Module):
    """Frames (N, h, w, 3) to patches by tile (N, tiles, patches, channels)."""

    def __init__(self, detector: PatchCore, tile: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self.tile = tile
        self.to_grid = GridFeatures(detector, detector.backbone.layers, PATCH_SIZE)

    def forward(self, frames: Tensor) -> Tensor:
        height, width = self.tile
        rows, columns = self.detector.grid[0] // height, self.detector.grid[1] // width
        channels = self.detector.n_channels
        backbone = self.detector.backbone
        features: Tensor = self.to_grid(backbone(backbone.normalise(frames)))
        patches = features.reshape(-1, rows, height, columns, width * channels)
        return patches.transpose(2, 3).reshape(-1, rows * columns, height * width, channels)


class _Memory(NamedTuple):
    """The memory's rows (m, C), their tensor in the graph, and its clusters (K, rows) of them."""

    rows: Tensor
    tensor: str
    blocks: Tensor


def patchcore_graph(detector: PatchCore) -> onnx.ModelProto:
    """Return the graph of eq. 6 and 7 of the paper over a searched memory."""
    tile = tile_size(detector.grid)
    model = module_graph(_Tiles(detector, tile), example_frames(detector), outputs=["patches"])
    graph = GraphBuilder(model)
    rows = detector.memory
    memory = _Memory(rows, graph.constant(rows.numpy(), "memory"), cluster(rows))
    distance = _searched(graph, memory, _visited_clusters(graph, memory), math.prod(tile))
    flat = graph.node("Reshape", distance, graph.constant([0, -1]))  # (N, P) in order of tiles
    farthest = _Farthest(graph, detector, memory.tensor, flat)
    score = farthest.score()
    by_tile = graph.node("ScatterElements", flat, farthest.index, farthest.distance, axis=1)
    return finish(graph, detector, _untiled(graph, detector, tile, by_tile), score=score)


def tile_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Return the divisors of the grid's sides that are nearest to `TILE`."""
    height, width = (
        min((part for part in range(1, side + 1) if side % part == 0), key=lambda p: abs(p - TILE))
        for side in grid
    )
    return height, width


def _visited_clusters(graph: GraphBuilder, memory: _Memory) -> str:
    """Append the choice of clusters: int64 (N, tiles, visited).

    A patch's own nearest cluster has a slack of 0; a tile takes those of the smallest slack.
    """
    centres = memory.rows[memory.blocks].mean(dim=1).numpy()
    products = graph.node("MatMul", "patches", graph.constant(-2 * centres.T, "centres"))
    norms = graph.constant(np.square(centres).sum(axis=1), "centre_norms")
    squared = graph.node("Add", products, norms)  # (N, tiles, patches, clusters), up to |x|^2
    nearest = graph.node("ReduceMin", squared, graph.constant([3]), keepdims=1)
    slack = graph.node(
        "ReduceMin", graph.node("Sub", squared, nearest), graph.constant([2]), keepdims=0
    )
    wanted = max(math.ceil(MIN_ROWS / memory.blocks.shape[1]), round(VISITED * len(centres)))
    visited = min(len(centres), wanted)
    return graph.nodes("TopK", (slack, graph.constant([visited])), 2, axis=2, largest=0)[1]


def _searched(graph: GraphBuilder, memory: _Memory, visited: str, patches: int) -> str:
    """Append the distances to the nearest row of the visited clusters: (N, tiles, patches).

    For each patch the cluster of the likest row, the `CANDIDATES` likest rows there, and the
    smaller of the true distances to them.
    """
    rows = memory.blocks.shape[1]
    likeness = _likeness(graph, memory, visited)  # (N, tiles, visited, patches, rows)
    by_cluster = graph.node("ReduceMax", likeness, graph.constant([4]), keepdims=0)
    best = graph.node("ArgMax", by_cluster, axis=2, keepdims=0)  # (N, tiles, patches)
    flat = graph.node("Reshape", likeness, graph.constant([0, 0, -1, rows]))
    start = graph.node("Mul", best, graph.constant(patches))
    own = graph.node("Add", start, graph.constant(np.arange(patches)))
    places = graph.node("Unsqueeze", own, graph.constant([3]))
    in_best = graph.node("GatherND", flat, places, batch_dims=2)  # (N, tiles, patches, rows)
    count = graph.constant([min(CANDIDATES, rows)])
    likest = graph.nodes("TopK", (in_best, count), 2, axis=3)[1]
    chosen = graph.node("GatherElements", visited, best, axis=2)
    first = graph.node("Mul", chosen, graph.constant(rows))
    place = graph.node("Add", graph.node("Unsqueeze", first, graph.constant([3])), likest)
    order = graph.constant(memory.blocks.flatten().numpy(), "memory_order")
    found = graph.node("Gather", memory.tensor, graph.node("Gather", order, place))
    difference = graph.node("Sub", graph.node("Unsqueeze", "patches", graph.constant([3])), found)
    distance = graph.node("ReduceL2", difference, graph.constant([4]), keepdims=0)
    return graph.node("ReduceMin", distance, graph.constant([3]), keepdims=0)


def _likeness(graph: GraphBuilder, memory: _Memory, visited: str) -> str:
    """Append how near each patch is to each visited row: (N, tiles, visited, patches, rows).

    Patches and memory are rounded to one step, so that in units of it |x - m|^2 / 2 =
    |x|^2 / 2 - (x.m - |m|^2 / 2), whose last part is an integer: the likeness. The 8 bits of a
    patch reach twice as far as the 7 bits of the memory; a patch that is farther still is cut off,
    far from every row.
    """
    middle = memory.rows.mean(dim=0)
    centred_rows = memory.rows - middle
    step = max(float(centred_rows.abs().max()), 1e-20) / MEMORY_MAX
    rows = (centred_rows / step)[memory.blocks].round().numpy()  # (K, rows, C)
    half_norms = np.rint(np.square(rows).sum(axis=2) / 2) + ZERO * rows.sum(axis=2)
    centred = graph.node("Sub", "patches", graph.constant(middle.numpy(), "memory_mean"))
    zero = graph.constant(np.array(ZERO, np.uint8))
    quantised = graph.node("QuantizeLinear", centred, graph.scalar(step), zero)
    columns = graph.constant(rows.astype(np.int8).transpose(0, 2, 1), "memory_blocks")
    products = graph.node(
        "MatMulInteger",
        graph.node("Unsqueeze", quantised, graph.constant([2])),
        graph.node("Gather", columns, visited),
    )
    offsets = graph.constant(half_norms.astype(np.int32)[:, None], "memory_norms")  # (K, 1, rows)
    return graph.node("Sub", products, graph.node("Gather", offsets, visited))


class _Farthest:
    """The patches that look farthest, compared with the whole memory.

    Attributes:
        index: their places, int64 (N, EXACT), farthest first.
        distance: their true distances (N, EXACT).
    """

    def __init__(
        self, graph: GraphBuilder, detector: PatchCore, memory: str, distance: str
    ) -> None:
        """Append the comparison with `memory` (m, C); `distance` (N, P) decides which they are."""
        self._graph = graph
        self._detector = detector
        channels = detector.n_channels
        count = min(EXACT, detector.grid[0] * detector.grid[1])
        self.index = graph.nodes("TopK", (distance, graph.constant([count])), 2, axis=1)[1]
        patches = graph.node("Reshape", "patches", graph.constant([0, -1, channels]))
        places = graph.node("Unsqueeze", self.index, graph.constant([2]))
        self._patches = graph.node("GatherND", patches, places, batch_dims=1)  # (N, EXACT, C)
        self._memory = memory
        flat = graph.node("Reshape", self._patches, graph.constant([-1, channels]))
        norms = graph.constant(detector.memory.square().sum(dim=1).numpy(), "memory_squares")
        squared = graph.node("Gemm", flat, self._memory, norms, alpha=-2.0, transB=1)
        row = graph.node("ArgMin", squared, axis=1, keepdims=0)
        self._rows = graph.node("Reshape", row, graph.constant([-1, count]))
        nearest = graph.node("Gather", self._memory, self._rows)
        difference = graph.node("Sub", self._patches, nearest)
        self.distance = graph.node("ReduceL2", difference, graph.constant([2]), keepdims=0)

    def score(self) -> str:
        """Append eq. 7: s = (1 - exp(s*) / sum exp(d)) s*, with each row's neighbours baked."""
        graph, detector = self._graph, self._detector
        count = min(detector.config.neighbours, len(detector.memory))
        best, place = graph.nodes("TopK", (self.distance, graph.constant([1])), 2, axis=1)
        if count == 1:
            return graph.node("Squeeze", best, graph.constant([1]))
        row = graph.node("GatherElements", self._rows, place, axis=1)  # of m*: (N, 1)
        table = graph.constant(_neighbours(detector.memory, count), "neighbours")
        around = graph.node("Gather", self._memory, graph.node("Gather", table, row))
        places = graph.node("Unsqueeze", place, graph.constant([2]))
        patch = graph.node("GatherND", self._patches, places, batch_dims=1)  # (N, 1, C)
        difference = graph.node("Sub", graph.node("Unsqueeze", patch, graph.constant([2])), around)
        axis = graph.constant([2])
        to_them = graph.node("ReduceL2", difference, graph.constant([3]), keepdims=0)
        # exp(s*) / sum exp(d): an overflow of the sum is a share of 0, as it should be. Not a
        # ReduceLogSumExp: OpenVINO's overflows to a share of 0 much earlier.
        farther = graph.node("Exp", graph.node("Sub", to_them, graph.node("Unsqueeze", best, axis)))
        inverse_share = graph.node("ReduceSum", farther, axis, keepdims=0)
        weighted = graph.node("Sub", best, graph.node("Div", best, inverse_share))
        return graph.node("Squeeze", weighted, graph.constant([1]))


def _neighbours(memory: Tensor, count: int) -> NDArray[np.int32]:
    """Return the rows nearest to each row, itself included: (m, count)."""
    nearest = [
        squared_distances(block, memory).topk(count, largest=False).indices
        for block in torch.split(memory, ROWS_AT_ONCE)
    ]
    return torch.cat(nearest).numpy().astype(np.int32)


def _untiled(graph: GraphBuilder, detector: PatchCore, tile: tuple[int, int], distance: str) -> str:
    """Append the way back from tiles to the grid."""
    (height, width), (rows, columns) = detector.grid, tile
    shape = [-1, height // rows, width // columns, rows, columns]
    split = graph.node("Reshape", distance, graph.constant(shape))
    return graph.node("Transpose", split, perm=[0, 1, 3, 2, 4])
