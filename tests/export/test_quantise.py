"""Sums of 8-bit products must be exact, at the extremes too, on the CPU that runs this."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_ad_export.int8.quantise import (
    ACTIVATION_MAX,
    WEIGHT_MAX,
    ZERO,
    dot_with_zero,
    quantise_weights,
)
from edge_ad_export.int8.search import BASE, DIGIT_MAX, ROW_MAX, ROW_ZERO, with_norms


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "product",
        [
            helper.make_tensor_value_info("left", TensorProto.UINT8, left.shape),
            helper.make_tensor_value_info("right", TensorProto.INT8, right.shape),
        ],
        [helper.make_empty_tensor_value_info("product")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run(None, {"left": left, "right": right})[0]
    return result


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("activation", "weight"),
    [(ZERO + ACTIVATION_MAX, WEIGHT_MAX), (ROW_MAX + ROW_ZERO, 128), (DIGIT_MAX, BASE)],
)
def test_the_largest_products_do_not_saturate(
    rows: int, sign: int, activation: int, weight: int
) -> None:
    left = np.full((4, rows, 176), activation, np.uint8)
    right = np.full((4, 176, 88), min(sign * weight, 127), np.int8)
    expected = left.astype(np.int32) @ right.astype(np.int32)
    np.testing.assert_array_equal(product(left, right), expected)


@pytest.mark.parametrize("largest", [1, 7, ROW_MAX])
def test_a_product_with_the_norms_ranks_rows_by_their_distance(largest: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(-largest, largest + 1, (64, 40)).astype(np.float32)
    rows[0] = largest  # the longest there can be
    patches = rng.integers(-128, 128, (40, 16))
    halves = np.rint(np.square(rows).sum(axis=1) / 2)
    digits = 1 + max(1, int(-(-(halves.max() // BASE) // DIGIT_MAX)))
    places = np.array([-BASE] * (digits - 1) + [-1])
    columns = np.concatenate([patches, np.repeat(places[:, None], 16, axis=1)]).astype(np.int8)
    similarity = product(with_norms(rows, digits), columns)
    expected = rows @ patches - halves[:, None] + ROW_ZERO * patches.sum(axis=0)
    np.testing.assert_array_equal(similarity, expected)


def test_weights_come_back() -> None:
    values = np.random.default_rng(0).standard_normal((5, 12, 7)).astype(np.float32)
    values[2] = 0
    integers, scale = quantise_weights(values, (1,))
    assert scale.shape == (5, 1, 7)
    assert np.abs(integers).max() == WEIGHT_MAX
    assert (np.abs(integers * scale - values) <= scale * 0.501).all()
    expected = ZERO * integers.astype(np.int64).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(dot_with_zero(integers, 1), expected)
