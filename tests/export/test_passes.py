"""Rewritten graphs compute the same numbers with fewer operators."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.backbones import Backbone, FeatureMap, create_backbone
from edge_ad.models import Detector, PaDiM
from edge_ad.models.grid import embed_on_grid, local_average
from edge_ad_export.int8.grid import GridFeatures
from edge_ad_export.passes.channels import prune_channels
from edge_ad_export.passes.normalisation import fold_normalisation, interleave_colours
from edge_ad_export.torch_export import module_graph


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, frames: Tensor) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.float32] = session.run(None, {"frame": frames.numpy()})[0]
    return result


def frames_of(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator)


class Maps(nn.Module):
    """Frames to the first feature map, or to some of its channels."""

    def __init__(self, backbone: Backbone, channels: Tensor | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels

    def forward(self, frames: Tensor) -> Tensor:
        one: Tensor = self.backbone(self.backbone.normalise(frames))[-1]
        return one if self.channels is None else 2 * one.index_select(1, self.channels)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_the_normalisation_goes_into_the_first_convolution(name: str) -> None:
    layers = {"resnet18": ["layer1"]}.get(name, ["stage2"])
    module = Maps(create_backbone(name, layers=layers, weights="none"))
    # Borders count: a folded mean would turn the zeros beyond them into another colour.
    frames = frames_of(64, 96)
    model = module_graph(module, frames, outputs=["maps"])
    expected = run(model, frames)
    fold_normalisation(model)
    interleave_colours(model)
    head = operators(model)[:4]
    assert head == ["Cast", "Reshape", "Sub", "Conv"]
    got = run(model, frames)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_normalised_image_that_goes_elsewhere_too_is_left_alone() -> None:
    class Both(Maps):
        def forward(self, frames: Tensor) -> Tensor:
            image = self.backbone.normalise(frames)
            result: Tensor = self.backbone(image)[0].mean() + image.mean(dim=(1, 2, 3))
            return result

    module = Both(create_backbone("efficientnet_lite0", layers=["stage1"], weights="none"))
    frames = frames_of(32, 32)
    model = module_graph(module, frames, outputs=["total"])
    before = operators(model)
    fold_normalisation(model)
    assert operators(model) == before
    expected = run(model, frames)
    interleave_colours(model)  # cannot either: its bytes are transposed at least
    assert operators(model)[:2] == ["Transpose", "Cast"]
    np.testing.assert_array_equal(run(model, frames), expected)


@pytest.mark.parametrize(
    ("name", "layer", "choices"),
    [
        ("efficientnet_lite0", "stage4", 1),  # the way round the last block stays whole
        ("efficientnet_lite0", "stage1", 0),
        ("resnet18", "layer2", 1),
    ],
)
def test_channels_that_nobody_reads_are_not_computed(name: str, layer: str, choices: int) -> None:
    backbone = create_backbone(name, layers=[layer], weights="none")
    channels = torch.arange(1, backbone.layers[0].channels, 3)
    frames = frames_of(64, 64)
    model = module_graph(Maps(backbone, channels), frames, outputs=["maps"])
    whole = {tuple(tensor.dims) for tensor in model.graph.initializer}
    expected = run(model, frames)
    fold_normalisation(model)
    prune_channels(model)
    assert operators(model).count("Gather") == choices
    pruned = {tuple(tensor.dims) for tensor in model.graph.initializer} - whole
    assert any(len(shape) == 4 and shape[0] == len(channels) for shape in pruned)
    assert np.abs(run(model, frames) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_map_that_others_read_stays_whole() -> None:
    class Both(Maps):
        def forward(self, frames: Tensor) -> Tensor:
            one: Tensor = self.backbone(self.backbone.normalise(frames))[0]
            return one.index_select(1, torch.tensor([3, 5])) + one.mean()

    backbone = create_backbone("efficientnet_lite0", layers=["stage1"], weights="none")
    model = module_graph(Both(backbone), frames_of(32, 32), outputs=["maps"])
    before = copy.deepcopy(model)
    prune_channels(model)
    assert operators(model) == operators(before)


@pytest.mark.parametrize("grid_stride", [4, 8, 16])
@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_grid_features_are_those_of_the_detectors(grid_stride: int, patch_size: int) -> None:
    detector: Detector = PaDiM(weights="none", input_size=(64, 96), grid_stride=grid_stride)
    layers = [FeatureMap("a", 5, 4), FeatureMap("b", 6, 8), FeatureMap("c", 7, 16)]
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, one.channels, 64 // one.stride, 96 // one.stride, generator=generator)
        for one in layers
    ]
    channels = torch.tensor([0, 2, 3, 7, 8, 11, 12, 13, 14, 15, 16, 17])
    gains = torch.linspace(0.1, 3, len(channels))
    to_grid = GridFeatures(detector, layers, patch_size, channels=channels, gains=gains)
    expected = embed_on_grid(local_average(maps, patch_size), detector.grid)[:, channels]
    expected = expected.permute(0, 2, 3, 1) * gains
    torch.testing.assert_close(to_grid(maps), expected, rtol=1e-4, atol=1e-5)
