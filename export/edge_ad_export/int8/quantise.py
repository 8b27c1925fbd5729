"""Eight-bit numbers that every CPU multiplies to the same integers.

ONNX Runtime multiplies unsigned activations by signed weights. On x86 CPUs without VNNI (before
about 2019, and every AMD before Zen 4) it uses an instruction that adds two neighbouring products
in 16 bits and *saturates*: 255 * 127 + 255 * 127 > 32,767 silently gives another result than on a
newer CPU. Activations are therefore kept to 7 bits: 2 * 127 * 127 = 32,258 always fits, and the
sums are exact 32-bit integers everywhere. With 7-bit weights instead, scores were off by three
times as much (benchmarks/export.md).

The zero of the activations is 64, but MatMulInteger does not get it as its zero point, which would
take it off its fast path for single rows. The product of the weights with 64 is a constant, and
the caller subtracts it.
"""

import numpy as np
from numpy.typing import NDArray

from edge_ad_export.nodes import FLOAT, GraphBuilder

WEIGHT_MAX = 127
ZERO = 64
ACTIVATION_MAX = 63

SMALLEST_SCALE = 1e-22
"""A frame whose features are all the mean has the scale 0, which cannot be divided by."""

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
        "Max",
        graph.node("Mul", largest, graph.scalar(1 / ACTIVATION_MAX)),
        graph.scalar(SMALLEST_SCALE),
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
