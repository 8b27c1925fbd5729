"""The normalisation inside the first convolution."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

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


def interleave_colours(model: onnx.ModelProto) -> None:
    """Let the first convolution read `frame` as it is, with the colours beside each other.

    Instead of a transpose and a convolution of three channels: a convolution of one channel, three
    times as wide, in steps of three columns, with the same products. For CPUs, of a graph whose
    normalisation is folded; any other graph transposes bytes instead of floats at least.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for cast in [node for node in graph.node if node.op_type == "Cast" and node.input[0] == FRAME]:
        chain = _chain(model, cast, ("Transpose", "Sub", "Conv"))
        if chain is None or not _can_interleave(chain[2], constants):
            _transpose_bytes(model, cast)
            continue
        transpose, subtraction, convolution = chain
        frame = next(item for item in graph.input if item.name == FRAME)
        height, width = (size.dim_value for size in frame.type.tensor_type.shape.dim[1:3])
        means = numpy_helper.to_array(constants[subtraction.input[1]])
        weights = numpy_helper.to_array(constants[convolution.input[1]])
        outputs, colours, rows, columns = weights.shape
        wide = weights.transpose(0, 2, 3, 1).reshape(outputs, 1, rows, columns * colours)
        shape = np.array([-1, 1, height, width * colours])
        values = (shape, np.tile(means.reshape(1, 1, 1, -1), width), np.ascontiguousarray(wide))
        for node, array in zip(chain, values, strict=True):
            name = f"{node.output[0]}_interleaved"
            graph.initializer.append(numpy_helper.from_array(array, name))
            node.input[1:2] = [name]
        transpose.op_type = "Reshape"
        del transpose.attribute[:]
        _widen(convolution, colours)
        del graph.value_info[:]  # the shapes have changed; the checker infers them anew


def _can_interleave(convolution: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether it is a plain convolution of all colours with constant weights and given pads."""
    attributes = {item.name: helper.get_attribute_value(item) for item in convolution.attribute}
    return (
        convolution.input[1] in constants
        and {"kernel_shape", "pads", "strides"} <= attributes.keys()
        and attributes.get("group", 1) == 1
        and set(attributes.get("dilations", [1])) == {1}
        and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"")
    )


def _widen(convolution: onnx.NodeProto, factor: int) -> None:
    """Multiply what the attributes of a convolution say about columns."""
    for item in convolution.attribute:
        if item.name in ("kernel_shape", "strides", "pads"):
            item.ints[1::2] = [factor * value for value in item.ints[1::2]]


def _transpose_bytes(model: onnx.ModelProto, cast: onnx.NodeProto) -> None:
    """Transpose `frame` before its cast to float32, which moves a quarter of the memory."""
    nodes = model.graph.node
    chain = _chain(model, cast, ("Transpose",))
    if chain is None:
        return
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
