"""Frozen ImageNet networks that turn images into feature maps."""

from edge_ad.backbones.backbone import Backbone
from edge_ad.backbones.create import (
    BACKBONES,
    create_backbone,
    feature_maps,
    layers_of_strides,
)
from edge_ad.backbones.feature_map import FeatureMap

__all__ = [
    "BACKBONES",
    "Backbone",
    "FeatureMap",
    "create_backbone",
    "feature_maps",
    "layers_of_strides",
]
