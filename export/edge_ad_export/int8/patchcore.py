"""PatchCore in 8-bit integers, searching a part of the memory; the score is exact all the same.

The patches that look farthest in the search are compared with the whole memory: the score is the
largest of all true distances, unless a patch that looked nearer than all of these is farther.
"""

import math

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import PatchCore
from edge_ad.models.memory_bank import squared_distances
from edge_ad.models.patchcore import PATCH_SIZE
from edge_ad_export.int8.grid import GridFeatures, finish, to_tiles
from edge_ad_export.int8.search import Nearest, Search, from_tiles, tile_size
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

EXACT = 16
"""Patches of a frame that are compared with the whole memory."""

ROWS_AT_ONCE = 1024


class _Tiles(nn.Module):
    """Frames (N, h, w, 3) to patches by tile (N, tiles, patches, channels)."""

    def __init__(self, detector: PatchCore) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.to_grid = GridFeatures(detector, detector.backbone.layers, PATCH_SIZE)
        self.tile = tile_size(detector.grid, len(detector.memory))

    def forward(self, frames: Tensor) -> Tensor:
        return to_tiles(self.to_grid(self.backbone(self.backbone.normalise(frames))), self.tile)


def patchcore_graph(detector: PatchCore) -> onnx.ModelProto:
    """Return the graph of eq. 6 and 7 of the paper over a searched memory."""
    model = module_graph(_Tiles(detector), example_frames(detector), outputs=["patches"])
    graph = GraphBuilder(model)
    search = Search(graph, detector.memory, "patches")
    tile = tile_size(detector.grid, len(detector.memory))
    distance = search.searched_distance(tile)
    count = min(EXACT, math.prod(detector.grid))
    index = graph.nodes("TopK", (distance, graph.constant([count])), 2, axis=1)[1]
    farthest = search.nearest(index, count)
    score = _reweighted(graph, detector, search, index, farthest)
    exact = graph.node("ScatterElements", distance, index, farthest.distance, axis=1)
    return finish(graph, detector, from_tiles(graph, exact, detector.grid, tile), score=score)


def _reweighted(
    graph: GraphBuilder, detector: PatchCore, search: Search, index: str, farthest: Nearest
) -> str:
    """Append eq. 7: s = (1 - exp(s*) / sum exp(d)) s*, with each row's neighbours as a table."""
    count = min(detector.config.neighbours, len(detector.memory))
    best, place = graph.nodes("TopK", (farthest.distance, graph.constant([1])), 2, axis=1)
    if count == 1:
        return graph.node("Squeeze", best, graph.constant([1]))
    row = graph.node("GatherElements", farthest.rows, place, axis=1)  # of m*: (N, 1)
    table = graph.constant(_neighbours(detector.memory, count, search.order), "neighbours")
    around = search.gathered(graph.node("Gather", table, row))
    patch = search.chosen(graph.node("GatherElements", index, place, axis=1))  # (N, 1, C)
    difference = graph.node("Sub", graph.node("Unsqueeze", patch, graph.constant([2])), around)
    axis = graph.constant([2])
    to_them = graph.node("ReduceL2", difference, graph.constant([3]), keepdims=0)
    # exp(s*) / sum exp(d): an overflow of the sum is a share of 0, as it should be. Not a
    # ReduceLogSumExp: OpenVINO's overflows to a share of 0 much earlier.
    farther = graph.node("Exp", graph.node("Sub", to_them, graph.node("Unsqueeze", best, axis)))
    inverse_share = graph.node("ReduceSum", farther, axis, keepdims=0)
    weighted = graph.node("Sub", best, graph.node("Div", best, inverse_share))
    return graph.node("Squeeze", weighted, graph.constant([1]))


def _neighbours(memory: Tensor, count: int, order: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the rows of a search nearest to each of its rows, itself included: (rows, count)."""
    nearest = [
        squared_distances(block, memory).topk(count, largest=False).indices
        for block in torch.split(memory, ROWS_AT_ONCE)
    ]
    first = np.unique(order, return_index=True)[1]  # where the search has each row of the memory
    table: NDArray[np.int32] = first[torch.cat(nearest).numpy()][order].astype(np.int32)
    return table
