"""A fitted detector as the graph that a recipe asks for."""

import copy
from collections.abc import Sequence

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from torch import Tensor, nn

from edge_ad.backbones import Backbone
from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore
from edge_ad_export.int8.fusion import fusion_graph
from edge_ad_export.int8.padim import padim_graph
from edge_ad_export.int8.patchcore import patchcore_graph
from edge_ad_export.int8.spade import spade_graph
from edge_ad_export.operators import check_operators
from edge_ad_export.passes.channels import prune_channels
from edge_ad_export.passes.normalisation import fold_normalisation, interleave_colours
from edge_ad_export.passes.resize import bake_resize, fix_feature_sizes
from edge_ad_export.recipe import Recipe
from edge_ad_export.torch_export import check_graph, check_size, example_frames, module_graph
from edge_ad_runtime.errors import ExportError


def build_graph(detector: Detector, recipe: Recipe) -> onnx.ModelProto:
    """Return the graph: `frame` uint8 (N, h, w, 3) BGR -> `score` (N,), `anomaly_map` (N, h, w).

    With a baked resize `frame` may have any height and width, `anomaly_map` is at input size still.

    Raises:
        ExportError: there is no such form, or the graph would be larger than one file can be, is
            not valid, or holds an operator that the target does not have.
    """
    check_size(detector)
    detector = detector.cpu().eval()
    if recipe.precision == "int8":
        with torch.inference_mode():
            model = _integer_graph(detector)
    else:
        model = _plain_graph(detector, recipe)
    fold_normalisation(model)
    prune_channels(model)
    if recipe.target == "cpu":
        interleave_colours(model)
    if recipe.target == "cuda":
        fix_feature_sizes(model)
    if recipe.bake_resize:
        model = bake_resize(model, detector.preprocessing)
    model = _cleaned(model)
    check_graph(model)
    check_operators(model, recipe.target)
    return model


def backbone_graph(detector: Detector) -> onnx.ModelProto:
    """Return the bare backbone, to compare speeds: `image` (N, 3, h, w) to its feature maps."""
    names: Sequence[str] = [layer.name for layer in detector.backbone.layers]
    example = torch.zeros(2, 3, *detector.preprocessing.input_size)
    return _cleaned(module_graph(detector.backbone, example, input_name="image", outputs=names))


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without unused nodes, and without notes about the machine that built it.

    PyTorch's exporter leaves stack traces in every node, with the paths of the source files.
    """
    graph = onnx_ir.from_proto(model)
    RemoveUnusedNodesPass()(graph)
    ClearMetadataAndDocStringPass()(graph)
    cleaned = onnx_ir.to_proto(graph)
    for value in (*cleaned.graph.input, *cleaned.graph.output, *cleaned.graph.initializer):
        del value.metadata_props[:]
    return cleaned


def has_integer_form(detector: Detector) -> bool:
    """Whether int8 is offered; a full gallery is compared picture by picture, in float32."""
    if isinstance(detector, SPADE):
        return detector.config.gallery_rule == "position"
    return isinstance(detector, PaDiM | PatchCore | Fusion)


def _integer_graph(detector: Detector) -> onnx.ModelProto:
    if isinstance(detector, PaDiM):
        return padim_graph(detector)
    if isinstance(detector, PatchCore):
        return patchcore_graph(detector)
    if isinstance(detector, Fusion):
        return fusion_graph(detector)
    if isinstance(detector, SPADE) and has_integer_form(detector):
        return spade_graph(detector)
    raise ExportError(
        f"there is no int8 form of {detector.method} with a full gallery: use --precision fp32"
    )


def _plain_graph(detector: Detector, recipe: Recipe) -> onnx.ModelProto:
    """Export `Detector.forward` operator by operator."""
    module = _with_half_backbone(detector) if recipe.precision == "fp16" else detector
    # TensorRT would build an engine for every new batch size, which takes minutes.
    batch = 1 if recipe.target == "tensorrt" else 2
    return module_graph(module, example_frames(detector, batch=batch))


class _HalfBackbone(nn.Module):
    """A backbone that computes in float16 between float32 images and float32 feature maps."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.name, self.layers, self.normalise = backbone.name, backbone.layers, backbone.normalise
        self.half_backbone = copy.deepcopy(backbone).half()

    def forward(self, images: Tensor) -> list[Tensor]:
        return [one.float() for one in self.half_backbone(images.half())]


def _with_half_backbone(detector: Detector) -> Detector:
    half = copy.copy(detector)
    half._modules = dict(detector._modules)  # copied, or the original would get the backbone too
    half.add_module("backbone", _HalfBackbone(detector.backbone))
    return half
