"""Frozen ImageNet networks that turn images into feature maps."""

from edge_ad.backbones.backbone import Backbone, FeatureMap
from edge_ad.backbones.create import (
    BACKBONES,
    create_backbone,
    feature_maps,
    layers_of_strides,
)

__all__ = [
    "BACKBONES",
    "Backbone",
    "FeatureMap",
    "create_backbone",
    "feature_maps",
    "layers_of_strides",
]
