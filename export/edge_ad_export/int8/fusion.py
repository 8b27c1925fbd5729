"""Fusion in 8-bit integers: PaDiM's products and PatchCore's search on the features of one pass."""

import math

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import Fusion
from edge_ad_export.int8.grid import GridFeatures, finish, to_tiles
from edge_ad_export.int8.padim import RoundedGaussians, gaussian_distance
from edge_ad_export.int8.search import Search, from_tiles, tile_size
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

EXACT = 16
"""Patches of a frame, those with the highest sums, that are compared with the whole memory."""


class _Features(nn.Module):
    """Frames (N, h, w, 3) to features times their gains (N, P, d), and to patches by tile."""

    def __init__(self, detector: Fusion, gains: Tensor) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.to_grid = GridFeatures(detector, detector.backbone.layers, detector.config.patch_size)
        self._channels = None if detector.dims == detector.n_channels else detector.channels
        self._gains = gains
        self._n_finer = detector.n_finer
        self._tile = tile_size(detector.grid, len(detector.memory))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features: Tensor = self.to_grid(self.backbone(self.backbone.normalise(frames)))
        drawn = features if self._channels is None else features.index_select(3, self._channels)
        patches = to_tiles(features[..., self._n_finer :], self._tile)
        return drawn.flatten(1, 2) * self._gains, patches


def fusion_graph(detector: Fusion) -> onnx.ModelProto:
    """Return the graph: both distances times their weights, added, blurred; the highest value."""
    rounded = RoundedGaussians(detector)
    features = _Features(detector, rounded.gains)
    outputs = ["features", "patches"]
    graph = GraphBuilder(module_graph(features, example_frames(detector), outputs=outputs))
    of_gaussians, of_memory = (float(weight) for weight in detector.weights)
    gaussian = gaussian_distance(graph, rounded, "features", of_gaussians)
    search = Search(graph, detector.memory, "patches")
    tile = tile_size(detector.grid, len(detector.memory))
    searched = search.searched_distance(tile)
    weight = graph.scalar(of_memory)
    on_grid = graph.node("Mul", from_tiles(graph, searched, detector.grid, tile), weight)
    total = graph.node("Add", gaussian, on_grid)
    count = min(EXACT, math.prod(detector.grid))
    index = graph.nodes("TopK", (total, graph.constant([count])), 2, axis=1)[1]
    in_tiles = graph.node("Gather", graph.constant(_order_of_tiles(detector.grid, tile)), index)
    highest = graph.node(
        "Add",
        graph.node("GatherElements", gaussian, index, axis=1),
        graph.node("Mul", search.nearest(in_tiles, count).distance, weight),
    )
    distance = graph.node("ScatterElements", total, index, highest, axis=1)
    return finish(graph, detector, distance, score=None)


def _order_of_tiles(grid: tuple[int, int], tile: tuple[int, int]) -> NDArray[np.int64]:
    """Return where each place of the grid lies in the order of tiles: int64 (P,)."""
    places = torch.arange(math.prod(grid)).reshape(1, *grid, 1)
    return np.argsort(to_tiles(places, tile).flatten().numpy()).astype(np.int64)
