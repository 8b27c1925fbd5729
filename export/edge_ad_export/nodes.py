"""Append hand-written ONNX nodes to a graph."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Attribute = int | float | str | Sequence[int]

FLOAT = TensorProto.FLOAT
INT32 = TensorProto.INT32
UINT8 = TensorProto.UINT8


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, wherever a node reads or writes them."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


class GraphBuilder:
    """A graph whose outputs become intermediate tensors for the nodes that are appended."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take over a graph; it is changed in place."""
        self._model = model
        self._count = 0
        del model.graph.output[:]

    def constant(self, values: NDArray[np.generic] | Sequence[int] | int, name: str = "") -> str:
        """Store a constant and return its name; integers become int64."""
        name = self._name(name or "constant")
        array = np.ascontiguousarray(values)
        self._model.graph.initializer.append(
            numpy_helper.from_array(array.reshape(np.shape(values)), name)
        )
        return name

    def scalar(self, value: float) -> str:
        """Store a float32 scalar and return its name."""
        return self.constant(np.array(value, np.float32))

    def node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Append a node with one output and return the output's name."""
        return self.nodes(operator, inputs, 1, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Attribute
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        names = [self._name(operator.lower()) for _ in range(outputs)]
        node = helper.make_node(operator, list(inputs), names, names[0])
        for key, value in attributes.items():
            node.attribute.append(helper.make_attribute(key, value))
        self._model.graph.node.append(node)
        return names

    def finish(self, outputs: dict[str, tuple[str, Sequence[int | str]]]) -> onnx.ModelProto:
        """Name the outputs and return the graph.

        Args:
            outputs: final name to the tensor's name and its shape; all are float32.
        """
        rename(self._model.graph, {tensor: name for name, (tensor, _) in outputs.items()})
        for name, (_, shape) in outputs.items():
            self._model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, shape))
        return self._model

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"head.{hint}_{self._count}"
