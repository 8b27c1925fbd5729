"""Backbones of torchvision, with torchvision's own weights.

torchvision is imported inside the functions: it takes longer to import than torch itself, and the
default backbone does without it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_ad.backbones.backbone import Backbone, FeatureMap
from edge_ad.backbones.weights import UNTRAINED, downloading, load_strictly, read_state_dict
from edge_ad_runtime.errors import EdgeAdError

WEIGHTS = "IMAGENET1K_V1"
"""The weights that the detectors' papers used; torchvision's newer recipes classify better."""

TORCHVISION_MAPS = {
    "resnet18": (
        FeatureMap("stem", 64, 2),
        FeatureMap("layer1", 64, 4),
        FeatureMap("layer2", 128, 8),
        FeatureMap("layer3", 256, 16),
        FeatureMap("layer4", 512, 32),
    ),
    "resnet50": (
        FeatureMap("stem", 64, 2),
        FeatureMap("layer1", 256, 4),
        FeatureMap("layer2", 512, 8),
        FeatureMap("layer3", 1024, 16),
        FeatureMap("layer4", 2048, 32),
    ),
    "wide_resnet50_2": (
        FeatureMap("stem", 64, 2),
        FeatureMap("layer1", 256, 4),
        FeatureMap("layer2", 512, 8),
        FeatureMap("layer3", 1024, 16),
        FeatureMap("layer4", 2048, 32),
    ),
    "mobilenet_v3_large": (
        FeatureMap("stage1", 16, 2),
        FeatureMap("stage2", 24, 4),
        FeatureMap("stage3", 40, 8),
        FeatureMap("stage4", 112, 16),
        FeatureMap("stage5", 160, 32),
    ),
    "efficientnet_b0": (
        FeatureMap("stage1", 16, 2),
        FeatureMap("stage2", 24, 4),
        FeatureMap("stage3", 40, 8),
        FeatureMap("stage4", 112, 16),
        FeatureMap("stage5", 320, 32),
    ),
}
"""Feature maps of each network, finest first."""

# The last block of each stride, before any head.
_NODES = {
    "mobilenet_v3_large": {
        "stage1": "features.1",
        "stage2": "features.3",
        "stage3": "features.6",
        "stage4": "features.12",
        "stage5": "features.15",
    },
    "efficientnet_b0": {
        "stage1": "features.1",
        "stage2": "features.2",
        "stage3": "features.3",
        "stage4": "features.5",
        "stage5": "features.7",
    },
}
_RESNET_NODES = {"stem": "relu"}


def create_torchvision(name: str, maps: Sequence[FeatureMap], weights: str | None) -> Backbone:
    """Build a truncated network; see `create_backbone`."""
    from torchvision.models import get_model, get_model_weights
    from torchvision.models.feature_extraction import create_feature_extractor

    entry = get_model_weights(name)[WEIGHTS]
    network = get_model(name, weights=None).eval()
    if weights == "pretrained":
        load_strictly(network, _download(name, entry), entry.url)
    elif weights not in UNTRAINED:
        load_strictly(network, read_state_dict(Path(weights)), weights)
    nodes = _NODES.get(name, _RESNET_NODES)
    wanted = {nodes.get(item.name, item.name): item.name for item in maps}
    truncated = create_feature_extractor(network, wanted, suppress_diff_warning=True)
    transforms = entry.transforms()
    return Backbone(name, maps, truncated, mean=transforms.mean, std=transforms.std)


def _download(name: str, entry: Any) -> dict[str, Tensor]:
    """Fetch the weights, or take them from torch's cache.

    Raises:
        EdgeAdError: no connection, or no place to keep them; says how to bring the file by hand.
    """
    try:
        with downloading():
            state: dict[str, Tensor] = entry.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        file_name = entry.url.rsplit("/", 1)[1]
        raise EdgeAdError(
            f"cannot download the weights of {name} into {torch.hub.get_dir()} ({error}): set "
            f"TORCH_HOME to another folder, or fetch {entry.url} on a machine with internet, bring "
            f"{file_name} here and pass it as --weights {file_name}"
        ) from error
    return state
