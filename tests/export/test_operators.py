"""The operator check against planted nodes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_ad_export.operators import check_operators
from edge_ad_runtime.errors import ExportError


def graph(operator: str, *, kind: int, inputs: int = 1, domain: str = "") -> onnx.ModelProto:
    names = [f"input{index}" for index in range(inputs)]
    node = helper.make_node(operator, names, ["output"], name="planted", domain=domain)
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(
        helper.make_graph(
            [node],
            "planted",
            [helper.make_tensor_value_info(name, kind, [2, 2]) for name in names],
            [helper.make_empty_tensor_value_info("output")],
        ),
        opset_imports=opsets,
    )


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "portable"])
def test_an_ordinary_operator_passes(target: str) -> None:
    check_operators(graph("MatMul", kind=TensorProto.FLOAT, inputs=2), target)


@pytest.mark.parametrize(
    ("operator", "kind", "inputs", "target"),
    [
        ("Det", TensorProto.FLOAT, 1, "cuda"),
        ("MatMulInteger", TensorProto.UINT8, 2, "cuda"),
        ("MatMulInteger", TensorProto.INT8, 2, "tensorrt"),
        ("MatMul", TensorProto.FLOAT16, 2, "cpu"),
        ("Transpose", TensorProto.UINT8, 1, "tensorrt"),
        ("ArgMin", TensorProto.INT32, 1, "cuda"),
        ("Det", TensorProto.FLOAT, 1, "tensorrt"),
    ],
)
def test_a_planted_operator_is_caught_by_name(
    operator: str, kind: int, inputs: int, target: str
) -> None:
    with pytest.raises(ExportError, match=rf"{target}.* {operator} .*planted"):
        check_operators(graph(operator, kind=kind, inputs=inputs), target)


def test_operators_of_other_domains_are_caught() -> None:
    model = graph("FusedMatMul", kind=TensorProto.FLOAT, inputs=2, domain="com.microsoft")
    with pytest.raises(ExportError, match="FusedMatMul"):
        check_operators(model, "portable")


def test_constants_have_types_too() -> None:
    model = graph("Add", kind=TensorProto.FLOAT16, inputs=1)
    model.graph.node[0].input.append("constant")
    tensor = numpy_helper.from_array(np.ones(2, np.float16), "constant")
    model.graph.initializer.append(tensor)
    with pytest.raises(ExportError, match="Add on float16"):
        check_operators(model, "cpu")
