"""PaDiM in 8-bit integers: the factors are a quarter in size, and their streaming is the cost."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import PaDiM
from edge_ad_export.int8.features import GridFeatures
from edge_ad_export.int8.finish import finish
from edge_ad_export.int8.quantise import as_float, dot_with_zero, quantise_frames, quantise_weights
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

ALIGNMENT = 32
"""Rows of a block of the factor come in multiples of what ONNX Runtime multiplies at a time."""


class _Features(nn.Module):
    """Frames (N, h, w, 3) to the features of each position (N, P, d), times their gains."""

    def __init__(self, detector: PaDiM, gains: Tensor) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.to_grid = GridFeatures(
            detector,
            detector.backbone.layers,
            detector.config.patch_size,
            channels=detector.channels,
            gains=gains,
        )

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.backbone(self.backbone.normalise(frames))
        features: Tensor = self.to_grid(maps)
        return features.flatten(1, 2)


def padim_graph(detector: PaDiM) -> onnx.ModelProto:
    """Return the graph: |L^-1 (x - mean)| per position (eq. 2 of the paper), cov = L L^T.

    x - mean comes in 7 bits with one scale a frame, in units of the largest standard deviation that
    its channel has anywhere; L^-1 in 8 bits with one scale a row. L^-1 is lower triangular: its
    upper rows need as many columns only, so that two products leave half of the zeros out. More
    products leave more out, and cost more than that saves.
    """
    factors = detector.whitening.double()
    identity = torch.eye(detector.dims, dtype=factors.dtype)
    cholesky = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
    means = (cholesky @ detector.mean_whitened.double()[:, :, None])[:, :, 0]
    deviations = cholesky.square().sum(dim=2).sqrt().amax(dim=0)
    features = _Features(detector, (1 / deviations).float())
    model = module_graph(features, example_frames(detector), outputs=["features"])
    graph = GraphBuilder(model)
    centred = graph.node(
        "Sub", "features", graph.constant((means / deviations).float().numpy(), "means")
    )
    quantised, scale = quantise_frames(graph, centred)
    by_position = graph.node("Transpose", quantised, perm=[1, 0, 2])  # (P, N, d)
    scaled = (factors * deviations).float().numpy()
    half = ALIGNMENT * round(detector.dims / 2 / ALIGNMENT)
    total = _block(graph, by_position, scaled, slice(half, detector.dims))
    if half:
        total = graph.node("Add", total, _block(graph, by_position, scaled, slice(0, half)))
    in_steps = graph.node("Transpose", graph.node("Sqrt", total), perm=[1, 0])  # (N, P)
    distance = graph.node("Mul", in_steps, graph.node("Squeeze", scale, graph.constant([2])))
    return finish(graph, detector, distance, score=None)


def _block(graph: GraphBuilder, features: str, factors: NDArray[np.float32], rows: slice) -> str:
    """Append the sum of squares of some rows of L^-1 (x - mean): (P, N)."""
    end = rows.stop
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
