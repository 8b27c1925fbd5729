"""PaDiM in 8-bit integers: the factors are a quarter in size, and their streaming is the cost."""

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import PaDiM
from edge_ad_export.builder import GraphBuilder
from edge_ad_export.graph import example_frames, module_graph
from edge_ad_export.heads.smoothing import finish
from edge_ad_export.quantise import as_float, dot_with_zero, quantise_frames, quantise_weights

BLOCKS = 2
"""Row blocks of the triangular factor: 2 leave half of the zeros out; each block is a product."""


class _Features(nn.Module):
    """Frames (N, h, w, 3) to the features of each position (N, P, d)."""

    def __init__(self, detector: PaDiM) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, frames: Tensor) -> Tensor:
        return self.detector.embed(frames).permute(2, 0, 1)


def padim_graph(detector: PaDiM) -> onnx.ModelProto:
    """Return the graph: |L^-1 (x - mean)| per position (eq. 2 of the paper), cov = L L^T.

    x - mean comes in 8 bits with one scale a frame, L^-1 in 7 bits with one scale a row. L^-1 is
    lower triangular, so that block i of its rows needs the first d * (i + 1) / BLOCKS columns only.
    """
    model = module_graph(_Features(detector), example_frames(detector), outputs=["features"])
    graph = GraphBuilder(model)
    factors = detector.whitening.numpy()
    means = np.linalg.solve(factors.astype(np.float64), detector.mean_whitened[:, :, None].numpy())
    centred = graph.node(
        "Sub", "features", graph.constant(means[:, :, 0].astype(np.float32), "means")
    )
    quantised, scale = quantise_frames(graph, centred)
    by_position = graph.node("Transpose", quantised, perm=[1, 0, 2])  # (P, N, d)
    squares = [
        _block(graph, by_position, factors, rows)
        for rows in np.array_split(np.arange(detector.dims), BLOCKS)
        if len(rows)
    ]
    total = squares[0]
    for other in squares[1:]:
        total = graph.node("Add", total, other)
    distance = graph.node("Transpose", graph.node("Sqrt", total), perm=[1, 0])  # (N, P)
    per_frame = graph.node("Squeeze", scale, graph.constant([2]))
    return finish(graph, detector, graph.node("Mul", distance, per_frame), score=None)


def _block(
    graph: GraphBuilder, features: str, factors: NDArray[np.float32], rows: NDArray[np.int_]
) -> str:
    """Append the sum of squares of some rows of L^-1 (x - mean): (P, N)."""
    end = int(rows[-1]) + 1
    if end < factors.shape[2]:
        features = graph.node(
            "Slice", features, graph.constant([0]), graph.constant([end]), graph.constant([2])
        )
    columns = np.swapaxes(factors[:, rows, :end], 1, 2)  # (P, end, rows): x^T L^-T
    integers, scales = quantise_weights(columns, (1,))
    product = graph.node("MatMulInteger", features, graph.constant(integers, "factors"))
    exact = graph.node("Sub", product, graph.constant(dot_with_zero(integers, 1)))
    whitened = graph.node("Mul", as_float(graph, exact), graph.constant(scales, "factor_scales"))
    return graph.node("ReduceSumSquare", whitened, graph.constant([2]), keepdims=0)
