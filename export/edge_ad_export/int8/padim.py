"""PaDiM in 8-bit integers: reading the factors is what takes the time, and they are a quarter."""

from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.models import Fusion, PaDiM
from edge_ad_export.int8.grid import GridFeatures, finish
from edge_ad_export.int8.quantise import (
    as_float,
    dot_with_zero,
    quantise_frames,
    quantise_weights,
)
from edge_ad_export.nodes import GraphBuilder
from edge_ad_export.torch_export import example_frames, module_graph

ALIGNMENT = 32
"""A block has a multiple of this many rows, which is what ONNX Runtime multiplies at a time."""


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


class RoundedGaussians:
    """What the Gaussians of a fitted detector become in integers.

    x - mean comes in 7 bits with one scale a frame, in units of the largest standard deviation that
    its channel has anywhere; L^-1 in 8 bits with one scale a row, cov = L L^T. L^-1 is lower
    triangular: its upper rows need as many columns only, so that two products leave half of the
    zeros out. More products leave more out, and cost more than that saves.

    Attributes:
        gains: (d,), one over the unit of each channel.
        means: (P, d), in these units.
        blocks: some rows of the factors each, in the order in which the graph multiplies them.
    """

    def __init__(self, detector: PaDiM | Fusion) -> None:
        """Round the factors of a fitted detector."""
        factors = detector.whitening.double()
        identity = torch.eye(detector.dims, dtype=factors.dtype)
        cholesky = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
        means = (cholesky @ detector.mean_whitened.double()[:, :, None])[:, :, 0]
        deviations = cholesky.square().sum(dim=2).sqrt().amax(dim=0)
        self.gains = (1 / deviations).float()
        self.means = (means / deviations).float()
        scaled = (factors * deviations).float().numpy()
        half = ALIGNMENT * round(detector.dims / 2 / ALIGNMENT)
        rows = [slice(half, detector.dims), slice(0, half)] if half else [slice(0, detector.dims)]
        self.blocks = [Block.of(scaled, each) for each in rows]


class Block(NamedTuple):
    """Rows of L^-1 from `start` on, transposed: int8 (P, columns, rows), scales (P, 1, rows)."""

    start: int
    integers: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, factors: NDArray[np.float32], rows: slice) -> "Block":
        """Round rows of lower triangular factors (P, d, d), without the columns that are zero."""
        columns = np.swapaxes(factors[:, rows, : rows.stop], 1, 2)
        return cls(rows.start, *quantise_weights(columns, (1,)))


def padim_graph(detector: PaDiM) -> onnx.ModelProto:
    """Return the graph: |L^-1 (x - mean)| per position (eq. 2 of the paper), cov = L L^T."""
    rounded = RoundedGaussians(detector)
    features = _Features(detector, rounded.gains)
    model = module_graph(features, example_frames(detector), outputs=["features"])
    graph = GraphBuilder(model)
    distance = gaussian_distance(graph, rounded, "features")
    return finish(graph, detector, distance, score=None)


def gaussian_distance(
    graph: GraphBuilder, rounded: RoundedGaussians, features: str, weight: float = 1.0
) -> str:
    """Append |L^-1 (x - mean)| times a weight: (N, P) of features (N, P, d) times their gains."""
    centred = graph.node("Sub", features, graph.constant(rounded.means.numpy(), "means"))
    quantised, scale = quantise_frames(graph, centred)
    by_position = graph.node("Transpose", quantised, perm=[1, 0, 2])  # (P, N, d)
    dims = rounded.means.shape[1]
    total, *others = [_sum_of_squares(graph, by_position, each, dims) for each in rounded.blocks]
    for other in others:
        total = graph.node("Add", total, other)
    in_steps = graph.node("Transpose", graph.node("Sqrt", total), perm=[1, 0])  # (N, P)
    unit = graph.node("Squeeze", scale, graph.constant([2]))
    if weight != 1:
        unit = graph.node("Mul", unit, graph.scalar(weight))
    return graph.node("Mul", in_steps, unit)


def _sum_of_squares(graph: GraphBuilder, features: str, block: Block, dims: int) -> str:
    """Append the sum of squares of some rows of L^-1 (x - mean): (P, N)."""
    columns = block.integers.shape[1]
    if columns < dims:
        end = graph.constant([columns])
        features = graph.node("Slice", features, graph.constant([0]), end, graph.constant([2]))
    product = graph.node("MatMulInteger", features, graph.constant(block.integers, "factors"))
    exact = graph.node("Sub", product, graph.constant(dot_with_zero(block.integers, 1)))
    whitened = graph.node(
        "Mul", as_float(graph, exact), graph.constant(block.scales, "factor_scales")
    )
    return graph.node("ReduceSumSquare", whitened, graph.constant([2]), keepdims=0)
