"""What is known about a feature map before any image is seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad_runtime.errors import EdgeAdError

DEFAULT_MAX_STRIDE = 16
"""Coarser maps are left out unless they are asked for: they describe whole objects, not defects."""


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


def select_maps(
    backbone: str, available: Sequence[FeatureMap], layers: Sequence[str] | None
) -> tuple[FeatureMap, ...]:
    """Pick maps by name, in the network's order; None: all up to stride 16.

    Raises:
        EdgeAdError: no name, or one that the backbone does not have.
    """
    if layers is None:
        return tuple(item for item in available if item.stride <= DEFAULT_MAX_STRIDE)
    names = [item.name for item in available]
    unknown = [layer for layer in layers if layer not in names]
    if unknown or not layers:
        came = f"got {', '.join(unknown)}" if unknown else "got none"
        raise EdgeAdError(
            f"expected layers of the backbone {backbone}, {came}: choose from {', '.join(names)}"
        )
    return tuple(item for item in available if item.name in layers)
