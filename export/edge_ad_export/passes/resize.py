"""Resizes in the graph: that of the device, and those of feature maps.

The device's is baked in for clients that send frames of any size.

Not an antialiased Resize: ONNX has a triangle filter only, twice as wide as the areas that the
device averages, and SPADE lost 2 points of image AUROC by the difference (benchmarks/export.md).
A resize along one axis is a product with a small matrix, which the graph computes from the size of
the frame.
"""

import onnx
import torch
from onnx import compose, helper, numpy_helper
from torch import Tensor, nn

from edge_ad_export.nodes import rename
from edge_ad_export.torch_export import FRAME, module_graph
from edge_ad_runtime.model.image import Preprocessing

RESIZED = "resized"


def fix_feature_sizes(model: onnx.ModelProto) -> None:
    """Let each Resize of (N, C, H, W) state height and width only, which are constants.

    PyTorch's exporter asks a tensor for its batch and channels to say how large its resize is to
    be. ONNX Runtime keeps such arithmetic on the CPU, so that no graph with it is wholly on a GPU.
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


def bake_resize(model: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Return the graph with a `frame` of any height and width."""
    height, width = preprocessing.input_size
    # Larger than the input and not square: sizes that coincide would be taken for constants.
    example = torch.zeros(2, 2 * height + 1, 3 * width + 2, 3, dtype=torch.uint8)
    resize = module_graph(_Resize(preprocessing), example, outputs=[RESIZED], any_size=True)
    merged = compose.merge_models(
        compose.add_prefix(resize, "resize."),
        compose.add_prefix(model, "model."),
        io_map=[(f"resize.{RESIZED}", f"model.{FRAME}")],
    )
    return _renamed(merged)


class _Resize(nn.Module):
    """`Preprocessing.apply` for frames (N, H, W, 3): (N, h, w, 3), both uint8."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._size = preprocessing.input_size
        self._shorter = preprocessing.resize

    def forward(self, frames: Tensor) -> Tensor:
        _, height, width, _ = frames.shape
        # Sizes as tensors: what follows holds for every size, and is not decided while exporting.
        frame = torch.stack([torch.ones(height).sum(), torch.ones(width).sum()])
        size = torch.tensor(self._size, dtype=torch.float32)
        whole = size
        if self._shorter is not None:
            whole = torch.maximum(torch.round(frame * (self._shorter / frame.min())), size)
        first = torch.floor((whole - size) / 2)
        shrinks = (frame >= whole).all()
        rows, columns = (
            _weights(length, self._size[axis], (frame / whole)[axis], first[axis], shrinks)
            for axis, length in enumerate((height, width))
        )
        by_row = rows @ frames.float().reshape(-1, height, width * 3)
        resized = columns @ by_row.reshape(-1, self._size[0], width, 3)
        return torch.floor(resized + 0.5).clamp(0, 255).to(torch.uint8)


def _weights(length: int, size: int, scale: Tensor, first: Tensor, shrinks: Tensor) -> Tensor:
    """One axis, as OpenCV has it: areas where the frame shrinks, else linear; (size, length)."""
    source = torch.arange(length, dtype=torch.float32)
    target = (torch.arange(size, dtype=torch.float32) + first)[:, None]
    overlap = torch.minimum((target + 1) * scale, source + 1) - torch.maximum(
        target * scale, source
    )
    place = torch.minimum(((target + 0.5) * scale - 0.5).clamp(min=0), source[-1])
    linear = 1 - (place - source).abs()
    return torch.where(shrinks, overlap / scale, linear).clamp(min=0)


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give input and outputs the names of the contract back."""
    graph = model.graph
    promised = {item.name: item.name.split(".")[-1] for item in (*graph.input, *graph.output)}
    for item in (*graph.input, *graph.output):
        item.name = promised[item.name]
    rename(graph, promised)
    return model
