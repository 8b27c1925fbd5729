"""The sizes of feature maps as constants, where only the batch is not known before.

PyTorch's exporter asks a tensor for its batch and channels to say how large its resize is to be.
ONNX Runtime keeps such arithmetic on the CPU, so that no graph with it is wholly on a GPU.
"""

import onnx
from onnx import helper, numpy_helper


def fix_feature_sizes(model: onnx.ModelProto) -> None:
    """Let each Resize of (N, C, H, W) state height and width only, which are constants.

    A Resize whose sizes come from elsewhere is left as it is.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        sizes = source.get(node.input[3]) if node.op_type == "Resize" and node.input[3:] else None
        if sizes is None or sizes.op_type != "Concat" or sizes.input[-1] not in constants:
            continue
        rest = [source.get(name) for name in sizes.input[:-1]]
        if any(one is None or one.op_type != "Shape" for one in rest):
            continue
        size = numpy_helper.to_array(constants[sizes.input[-1]])
        if size.shape == (2,):
            node.input[3] = sizes.input[-1]
            node.attribute.append(helper.make_attribute("axes", [2, 3]))
