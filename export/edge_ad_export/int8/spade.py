"""SPADE in 8-bit integers, for galleries that are searched at the same position.

At one position there are as many stored patches as training pictures, a few hundred: comparing all
of them is a matrix-vector product of bytes, cheaper than copying those of the retrieved pictures
together. The others are then kept out of the minimum.
"""

import numpy as np
import onnx
from torch import Tensor, nn

from edge_ad.models import SPADE
from edge_ad_export.int8.grid import GridFeatures, finish
from edge_ad_export.int8.quantise import as_float, dot_with_zero, quantise_frames, quantise_weights
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

FAR = 1e30
"""Above every squared distance, and finite: infinity times zero would be no number."""


class _Embedding(nn.Module):
    """Frames (N, h, w, 3) to pooled features (N, C) and patches (N, P, d)."""

    def __init__(self, detector: SPADE) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.projection = detector.projection
        self.to_grid = GridFeatures(
            detector, detector.backbone.layers[:-1], detector.config.patch_size
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        *maps, deepest = self.backbone(self.backbone.normalise(frames))
        return deepest.mean(dim=(2, 3)), self.to_grid(maps).flatten(1, 2) @ self.projection


def spade_graph(detector: SPADE) -> onnx.ModelProto:
    """Return the graph of the rule `position`: map (sec. 3.3 of the paper) and either score."""
    outputs = ["pooled", "patches"]
    model = module_graph(_Embedding(detector), example_frames(detector), outputs=outputs)
    graph = GraphBuilder(model)
    gallery = graph.constant(detector.pooled.numpy(), "pooled_gallery")
    squared = _to_pictures(graph, detector, gallery)
    k = graph.constant([min(detector.config.k, len(detector.pooled))])
    nearest, pictures = graph.nodes("TopK", (squared, k), 2, axis=1, largest=0)
    by_map = detector.config.image_score == "map"
    score = None if by_map else _mean_distance(graph, graph.node("Gather", gallery, pictures))
    distance = _at_position(graph, detector, _others(graph, detector, squared, nearest))
    return finish(graph, detector, distance, score=score)


def _to_pictures(graph: GraphBuilder, detector: SPADE, gallery: str) -> str:
    """Append squared distances of the pooled features to all pictures: (N, n), up to |x|^2."""
    norms = graph.constant(detector.pooled.square().sum(dim=1).numpy(), "pooled_norms")
    return graph.node("Gemm", "pooled", gallery, norms, alpha=-2.0, transB=1)


def _mean_distance(graph: GraphBuilder, retrieved: str) -> str:
    """Append the mean distance to the retrieved pictures (N, k, C): (N,)."""
    query = graph.node("Unsqueeze", "pooled", graph.constant([1]))
    difference = graph.node("Sub", query, retrieved)
    to_k = graph.node("ReduceL2", difference, graph.constant([2]), keepdims=0)
    return graph.node("ReduceMean", to_k, graph.constant([1]), keepdims=0)


def _others(graph: GraphBuilder, detector: SPADE, squared: str, nearest: str) -> str | None:
    """Append what keeps pictures that were not retrieved away: (1, N, n); None: all were."""
    if detector.config.k >= len(detector.pooled):
        return None
    last = graph.constant([detector.config.k - 1])
    farther = graph.node("Greater", squared, graph.node("Gather", nearest, last, axis=1))
    far = graph.node("Where", farther, graph.scalar(FAR), graph.scalar(0))
    return graph.node("Unsqueeze", far, graph.constant([0]))


def _at_position(graph: GraphBuilder, detector: SPADE, others: str | None) -> str:
    """Append |x - g|^2 = |x|^2 + |g|^2 - 2 x.g, the least at each position, rooted: (N, P)."""
    gallery = detector.gallery.float().numpy()
    means = gallery.mean(axis=0)
    centred = graph.node("Sub", "patches", graph.constant(means, "gallery_means"))
    quantised, scale = quantise_frames(graph, centred)
    columns = (gallery - means).transpose(1, 2, 0)  # (P, d, n)
    integers, scales = quantise_weights(columns, (1, 2))
    norms = np.square(integers * scales).sum(axis=1, keepdims=True)
    by_position = graph.node("Transpose", quantised, perm=[1, 0, 2])  # (P, N, d)
    product = graph.node("MatMulInteger", by_position, graph.constant(integers, "gallery"))
    exact = graph.node("Sub", product, graph.constant(dot_with_zero(integers, 1)))
    by_frame = graph.node("Transpose", scale, perm=[1, 0, 2])  # (1, N, 1)
    factor = graph.node("Mul", graph.constant(-2 * scales, "gallery_scales"), by_frame)
    squared = graph.node("Mul", as_float(graph, exact), factor)
    squared = graph.node("Add", squared, graph.constant(norms, "gallery_norms"))
    if others is not None:
        squared = graph.node("Add", squared, others)
    nearest = graph.node("ReduceMin", squared, graph.constant([2]), keepdims=0)  # (P, N)
    own = graph.node("ReduceSumSquare", centred, graph.constant([2]), keepdims=0)
    total = graph.node("Add", graph.node("Transpose", nearest, perm=[1, 0]), own)
    return graph.node("Sqrt", graph.node("Relu", total))
