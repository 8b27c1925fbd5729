"""The normalisation inside the first convolution."""

import numpy as np
import onnx
from onnx import numpy_helper

from edge_ad_export.torch_export import FRAME


def fold_normalisation(model: onnx.ModelProto) -> None:
    """Move channel order and standard deviation into the first convolution's weights, exactly.

    The mean stays a subtraction of its own, because the convolution pads with zeros, which have to
    stand for the mean. A graph whose normalised image is read by other nodes too is left as it is.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for gather in [node for node in graph.node if node.op_type == "Gather"]:
        chain = _chain(model, gather, ("Sub", "Div", "Conv"))
        if chain is None:
            continue
        subtraction, division, convolution = chain
        names = (gather.input[1], subtraction.input[1], division.input[1], convolution.input[1])
        if any(name not in constants for name in names):
            continue
        order, mean, std, weights = (numpy_helper.to_array(constants[name]) for name in names)
        moved, means = np.empty_like(weights), np.empty_like(mean)
        moved[:, order] = weights / std.reshape(1, -1, 1, 1)
        means[:, order] = mean
        for node, values in ((subtraction, means), (convolution, moved)):
            name = f"{node.input[1]}_folded"
            graph.initializer.append(numpy_helper.from_array(values, name))
            node.input[1] = name
        subtraction.input[0] = gather.input[0]
        convolution.input[0] = subtraction.output[0]
        graph.node.remove(gather)
        graph.node.remove(division)


def transpose_bytes(model: onnx.ModelProto) -> None:
    """Transpose `frame` to channels first before the cast to float32, while it is bytes.

    For CPUs, where this moves a quarter of the memory; TensorRT needs the cast first.
    """
    nodes = model.graph.node
    for cast in [node for node in nodes if node.op_type == "Cast" and node.input[0] == FRAME]:
        chain = _chain(model, cast, ("Transpose",))
        if chain is None:
            continue
        (transpose,) = chain
        bytes_first = f"{transpose.output[0]}_bytes"
        transpose.input[0], cast.output[0] = FRAME, transpose.output[0]
        transpose.output[0] = cast.input[0] = bytes_first
        nodes.remove(cast)
        nodes.insert(list(nodes).index(transpose) + 1, cast)


def _chain(
    model: onnx.ModelProto, first: onnx.NodeProto, operators: tuple[str, ...]
) -> list[onnx.NodeProto] | None:
    """Return the operators that follow a node, each the only reader of the one before, or None."""
    found, name = [], first.output[0]
    for operator in operators:
        readers = [node for node in model.graph.node if name in node.input]
        if len(readers) != 1 or readers[0].op_type != operator or readers[0].input[0] != name:
            return None
        found.append(readers[0])
        name = readers[0].output[0]
    return found
