"""The one shape that all backbones have, and what is known of their feature maps beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureMap:
    """One output of a backbone.

    Attributes:
        name: what `--layers` calls it.
        channels: features at each position.
        stride: input pixels between two positions, in both directions.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """A frozen network, cut off after its deepest selected feature map.

    Attributes:
        name: as in `create_backbone`.
        layers: the selected feature maps, in the network's order.
    """

    mean: Tensor
    std: Tensor
    to_rgb: Tensor

    def __init__(
        self,
        name: str,
        layers: Sequence[FeatureMap],
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Freeze a network.

        Args:
            name: as in `create_backbone`.
            layers: what the network returns.
            network: images to a dict of feature maps by layer name.
            mean: of R, G, B in units of 0..1.
            std: likewise.
        """
        super().__init__()
        self.name = name
        self.layers = tuple(layers)
        # Convolutions on a CPU run up to twice as fast with the channels last.
        self.network = network.to(memory_format=torch.channels_last)
        # Constants of the architecture: they belong into the graph, not into a saved detector.
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)
        self.register_buffer("to_rgb", torch.tensor([2, 1, 0]), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def normalise(self, frames: Tensor) -> Tensor:
        """Turn frames (N, h, w, 3), uint8, BGR into images (N, 3, h, w), float32, RGB."""
        # Cast first: TensorRT takes uint8 as an input and nowhere else. And not `[:, [2, 1, 0]]`:
        # that exports as GatherND between two transposes instead of one Gather.
        rgb = frames.float().permute(0, 3, 1, 2).index_select(1, self.to_rgb)
        return (rgb - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the selected feature maps, each (N, channels, h / stride, w / stride).

        Args:
            images: (N, 3, h, w), float32, normalised; h and w multiples of 32.
        """
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        return [maps[layer.name] for layer in self.layers]

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: the batch statistics are frozen too."""
        super().train(False)
        return self


def _per_channel(values: Sequence[float]) -> Tensor:
    """Scale to the 0..255 of a frame: (1, 3, 1, 1)."""
    return 255 * torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
