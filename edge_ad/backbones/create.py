"""From a name on the command line to a backbone."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from edge_ad.backbones.backbone import Backbone, FeatureMap
from edge_ad.backbones.efficientnet_lite import LITE_NAMES, create_lite, lite_feature_maps
from edge_ad.backbones.timm_nets import create_timm, timm_feature_maps
from edge_ad.backbones.torchvision_nets import TORCHVISION_MAPS, create_torchvision
from edge_ad_runtime.errors import EdgeAdError

logger = logging.getLogger(__name__)

BACKBONES = (*LITE_NAMES, *TORCHVISION_MAPS)
"""Names that need no further package; the first is the default. `timm:NAME` comes on top."""

TIMM_PREFIX = "timm:"

DEFAULT_MAX_STRIDE = 16
"""Coarser maps are left out unless they are asked for: they describe whole objects, not defects."""


def feature_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return what a backbone offers, finest first, without loading any weights.

    Raises:
        EdgeAdError: no such backbone.
        MissingExtraError: `timm:NAME` without timm.
    """
    if name in LITE_NAMES:
        return lite_feature_maps(name)
    if name in TORCHVISION_MAPS:
        return TORCHVISION_MAPS[name]
    if name.startswith(TIMM_PREFIX):
        return timm_feature_maps(name.removeprefix(TIMM_PREFIX))
    raise EdgeAdError(
        f"expected a known backbone, got {name!r}: choose from {', '.join(BACKBONES)}, "
        f"or {TIMM_PREFIX}NAME for a model of timm"
    )


def create_backbone(
    name: str, *, layers: Sequence[str] | None = None, weights: str | None = "pretrained"
) -> Backbone:
    """Build a frozen backbone that runs no further than the deepest of the layers.

    Args:
        name: one of `BACKBONES`, or `timm:NAME`.
        layers: names out of `feature_maps(name)`; None: all up to stride 16.
        weights: `pretrained` (ImageNet), `none` (random, the same each time, with a warning), the
            path of a state dict of the whole classifier, or None: as `none`, silently, for a caller
            that hands over its own weights through `load_state_dict` next.

    Raises:
        EdgeAdError: unknown names, or weights that are not available or do not fit.
        MissingExtraError: a package that this backbone needs is not installed.
    """
    maps = _select_maps(name, feature_maps(name), layers)
    if weights == "none":
        logger.warning(
            "backbone %s with --weights none: UNTRAINED, the scores will mean little", name
        )
    with _seeded():
        if name in LITE_NAMES:
            return create_lite(name, maps, weights)
        if name in TORCHVISION_MAPS:
            return create_torchvision(name, maps, weights)
        return create_timm(name.removeprefix(TIMM_PREFIX), maps, weights)


def _select_maps(
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


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw initial weights from seed 0 and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would reseed the CUDA generators, too.
        torch.default_generator.manual_seed(0)
        yield


def layers_of_strides(backbone: str, strides: Sequence[int]) -> list[str]:
    """Name the deepest feature map of each stride.

    Raises:
        EdgeAdError: there is none of a stride.
    """
    names = {item.stride: item.name for item in feature_maps(backbone)}
    missing = [stride for stride in strides if stride not in names]
    if missing:
        raise EdgeAdError(
            f"the backbone {backbone} has no feature map of stride {missing[0]}, "
            f"only of {sorted(names)}: choose --layers by name"
        )
    return [names[stride] for stride in strides]
