"""Eight-bit numbers that every CPU multiplies to the same integers.

ONNX Runtime multiplies unsigned activations by signed weights. On x86 without VNNI (before 2019 or
so, and every AMD before Zen 4) it does so by an instruction that adds two neighbouring products in
16 bits and *saturates*: 255 * 127 + 255 * 127 > 32,767 gives another result than on a newer CPU,
without a word. One of the two therefore keeps to 7 bits, the activations: 2 * 127 * 127 = 32,258
always fits, sums are exact 32-bit integers everywhere. With the weights in 7 bits instead, scores
were off by three times as much (benchmarks/export.md).

Activations have their zero at 64, but MatMulInteger is not told: it would leave its fast path for
single rows. The product of the weights with 64 is a constant, and the caller subtracts it.
"""

import numpy as np
from numpy.typing import NDArray

from edge_ad_export.nodes import FLOAT, GraphBuilder

WEIGHT_MAX = 127
ZERO = 64
ACTIVATION_MAX = 63

Floats = NDArray[np.float32]


def quantise_weights(
    values: Floats, axes: tuple[int, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round to 8 bits and a scale; values = integers * scale.

    Args:
        values: any shape.
        axes: those that share one scale.

    Returns:
        Integers of -127 to 127, and scales with 1 along `axes`.
    """
    largest = np.abs(values).max(axis=axes, keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny * WEIGHT_MAX) / np.float32(WEIGHT_MAX)
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)


def quantise_frames(graph: GraphBuilder, values: str) -> tuple[str, str]:
    """Append nodes that round centred values (N, P, d) to 7 bits, with a scale for each frame.

    One scale a frame and not a batch (as DynamicQuantizeLinear has it): the score of a frame must
    not depend on its neighbours in the batch.

    Returns:
        Names of uint8 (N, P, d), zero at 64, and of the scales (N, 1, 1).
    """
    axes = graph.constant([1, 2])
    largest = graph.node("ReduceMax", graph.node("Abs", values), axes, keepdims=1)
    scale = graph.node(
        "Mul", graph.node("Max", largest, graph.scalar(1e-20)), graph.scalar(1 / ACTIVATION_MAX)
    )
    # Not one QuantizeLinear with a scale a frame: OpenVINO does not take it.
    steps = graph.node("Div", values, scale)
    zero = graph.constant(np.array(ZERO, np.uint8))
    return graph.node("QuantizeLinear", steps, graph.scalar(1), zero), scale


def dot_with_zero(weights: NDArray[np.int8], axis: int) -> NDArray[np.int32]:
    """Return what the activations' zero adds to the products: 64 * sum of weights along `axis`."""
    sums: NDArray[np.int32] = weights.sum(axis=axis, keepdims=True, dtype=np.int32)
    return np.int32(ZERO) * sums


def as_float(graph: GraphBuilder, integers: str) -> str:
    """Append a cast to float32."""
    return graph.node("Cast", integers, to=FLOAT)
