"""Channels that nobody reads are not computed."""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_ad_export.nodes import rename

_ELEMENTWISE = ("Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Add", "Mul", "Sub")
"""Operators that do with each channel what they do with it alone."""


def prune_channels(model: onnx.ModelProto) -> None:
    """Move each choice of channels up to the convolution that computes them.

    A detector that drew some channels of the deepest feature map needs no others from its last
    convolution: 4 % of a ResNet-18 (benchmarks/export.md). A map that other nodes read too stays
    whole, and the choice behind it.
    """
    for gather in [node for node in model.graph.node if node.op_type == "Gather"]:
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        channels = _channels(gather, constants)
        if channels is not None:
            _Choice(model.graph, constants, channels).remove(gather)
    del model.graph.value_info[:]  # the shapes have changed; the checker infers them anew


def _channels(
    gather: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> NDArray[np.int64] | None:
    """Return the constant channels that a node gathers; None: it does something else."""
    axis = next((item.i for item in gather.attribute if item.name == "axis"), 0)
    if axis != 1 or gather.input[1] not in constants:
        return None
    indices = numpy_helper.to_array(constants[gather.input[1]])
    return indices if indices.ndim == 1 else None


class _Choice:
    """A choice of channels on its way up through a graph."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        constants: dict[str, onnx.TensorProto],
        channels: NDArray[np.int64],
    ) -> None:
        self._graph = graph
        self._constants = constants
        self._channels = channels

    def remove(self, gather: onnx.NodeProto) -> None:
        """Make the node superfluous where that is possible."""
        if any(output.name == gather.output[0] for output in self._graph.output):
            return  # the name belongs to the outside
        if self._moves_above(gather.input[0]):
            self._graph.node.remove(gather)
            rename(self._graph, {gather.output[0]: gather.input[0]})

    def _moves_above(self, tensor: str) -> bool:
        """Let a tensor hold the chosen channels only; return whether that was possible."""
        readers = sum(list(node.input).count(tensor) for node in self._graph.node)
        producer = next((node for node in self._graph.node if tensor in node.output), None)
        if readers != 1 or producer is None:
            return False
        if producer.op_type == "Conv" and _is_dense(producer):
            self._slice(producer, range(1, len(producer.input)))
            return True
        if producer.op_type not in _ELEMENTWISE or not self._has_scalars_only(producer):
            return False
        for index, name in enumerate(producer.input):
            if name and name not in self._constants and not self._moves_above(name):
                producer.input[index] = self._gathered(name, before=producer)
        return True

    def _has_scalars_only(self, node: onnx.NodeProto) -> bool:
        constants = [self._constants[name] for name in node.input if name in self._constants]
        return all(int(np.prod(tensor.dims)) == 1 for tensor in constants)

    def _slice(self, node: onnx.NodeProto, inputs: Iterable[int]) -> None:
        """Keep the chosen rows of constant inputs."""
        for index in inputs:
            values = numpy_helper.to_array(self._constants[node.input[index]])[self._channels]
            name = f"{node.output[0]}_chosen_{index}"
            self._graph.initializer.append(numpy_helper.from_array(values, name))
            node.input[index] = name

    def _gathered(self, tensor: str, *, before: onnx.NodeProto) -> str:
        """Append the choice from a tensor that stays whole."""
        name = f"{tensor}_chosen_for_{before.output[0]}"
        self._graph.initializer.append(numpy_helper.from_array(self._channels, f"{name}_channels"))
        node = helper.make_node("Gather", [tensor, f"{name}_channels"], [name], name, axis=1)
        self._graph.node.insert(list(self._graph.node).index(before), node)
        return name


def _is_dense(convolution: onnx.NodeProto) -> bool:
    return all(item.name != "group" or item.i == 1 for item in convolution.attribute)
