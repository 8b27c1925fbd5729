"""Only operators that the target has: each node and its types against a table.

The tables hold the kernels of ONNX Runtime 1.31 for opset 18 (`benchmarks/operator_tables.py` makes
the CPU's from the installed wheel) and the operators of TensorRT 10's parser.
"""

import functools
import importlib.resources
import json

import onnx
from onnx import TensorProto, defs, shape_inference

from edge_ad_runtime.errors import ExportError

_TABLES = {
    "cpu": ("cpu",),
    "cuda": ("cuda",),
    # What TensorRT leaves out would run on CUDA behind it, so both must have it.
    "tensorrt": ("tensorrt", "cuda"),
    "portable": ("cpu", "cuda"),
}
"""Target -> the tables that hold every one of its operators."""

Table = dict[str, dict[str, list[str]]]
"""Operator -> name of a type in its definition -> types; types that are not named may be any."""


def check_operators(model: onnx.ModelProto, target: str) -> None:
    """Refuse a graph with an operator, or a type of one, that the target does not have.

    Raises:
        ExportError: names the operator, the node and the type.
    """
    types = _tensor_types(model)
    for name in _TABLES[target]:
        table = _table(name)
        for node in model.graph.node:
            problem = _problem(node, table, types)
            if problem:
                raise ExportError(
                    f"the target {target} cannot run the operator {node.op_type} {problem} "
                    f"(node {node.name or node.output[0]}, table {name}): "
                    "export with --target portable, and please report it"
                )


def _problem(node: onnx.NodeProto, table: Table, types: dict[str, str]) -> str | None:
    """Say what is wrong with a node; None: nothing."""
    if node.domain or node.op_type not in table:
        return "at all"
    allowed = table[node.op_type]
    schema = defs.get_schema(node.op_type, 18)
    for formal, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for index, name in enumerate(names):
            type_name = formal[min(index, len(formal) - 1)].type_str
            kind = types.get(name)
            if kind and type_name in allowed and kind not in allowed[type_name]:
                return f"on {kind}"
    return None


def _tensor_types(model: onnx.ModelProto) -> dict[str, str]:
    """Return the element type of every tensor, such as `float` or `uint8`."""
    graph = shape_inference.infer_shapes(model).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    return {name: TensorProto.DataType.Name(kind).lower() for name, kind in kinds.items()}


@functools.cache
def _table(name: str) -> Table:
    resource = importlib.resources.files("edge_ad_export") / "tables" / f"{name}.json"
    table: Table = json.loads(resource.read_text())
    return table
