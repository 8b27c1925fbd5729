"""Any model of timm that can return intermediate feature maps.

timm is an extra, so it is imported inside the functions.
"""

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_ad.backbones.backbone import Backbone, FeatureMap
from edge_ad.backbones.weights import UNTRAINED, downloading, load_strictly, read_state_dict
from edge_ad_runtime.errors import EdgeAdError, MissingExtraError


@functools.cache
def timm_feature_maps(name: str) -> tuple[FeatureMap, ...]:
    """Return the maps by timm's own module names, finest first."""
    with torch.device("meta"):
        model = _model(name)
    return tuple(
        FeatureMap(item["module"], item["num_chs"], item["reduction"])
        for item in model.feature_info
    )


def create_timm(name: str, maps: Sequence[FeatureMap], weights: str | None) -> Backbone:
    """Build a truncated network; see `create_backbone`."""
    model = _pretrained(name) if weights == "pretrained" else _model(name)
    if weights not in (*UNTRAINED, "pretrained"):
        load_strictly(model, read_state_dict(Path(weights)), weights)
    config = model.pretrained_cfg
    network = _TimmFeatures(model, timm_feature_maps(name), maps)
    return Backbone(f"timm:{name}", maps, network, mean=config["mean"], std=config["std"])


class _TimmFeatures(nn.Module):
    """A timm model without what comes after the deepest map."""

    def __init__(
        self, model: Any, available: Sequence[FeatureMap], maps: Sequence[FeatureMap]
    ) -> None:
        super().__init__()
        indices = [index for index, item in enumerate(available) if item in maps]
        self._names = [item.name for item in maps]
        self._indices = model.prune_intermediate_layers(indices, prune_head=True)
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.model.forward_intermediates(
            images, indices=self._indices, intermediates_only=True, output_fmt="NCHW"
        )
        return dict(zip(self._names, maps, strict=True))


def _model(name: str, *, pretrained: bool = False) -> Any:
    """Create the whole model.

    Raises:
        MissingExtraError: timm is not installed.
        EdgeAdError: timm has no such model.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingExtraError(
            f"the backbone timm:{name} needs the package 'timm', which is not installed: "
            "pip install 'edge-ad[timm]'"
        ) from error
    if not timm.is_model(name):
        raise EdgeAdError(
            f"timm has no model {name!r}: timm.list_models('*part of name*') lists what there is"
        )
    try:
        return timm.create_model(name, pretrained=pretrained)
    except RuntimeError as error:
        raise EdgeAdError(f"timm cannot create the model {name!r} ({error})") from error


def _pretrained(name: str) -> Any:
    """Create the whole model with the weights that timm downloads or has in its cache."""
    try:
        with downloading():
            return _model(name, pretrained=True)
    except OSError as error:
        raise EdgeAdError(
            f"cannot download the weights of timm:{name} ({str(error).splitlines()[0]}): save the "
            "model's state_dict() on a machine with internet and pass the file as --weights FILE"
        ) from error
