"""SPADE: the k nearest good pictures, then the nearest patches among theirs."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from edge_ad.config import SpadeConfig, takes_options
from edge_ad.models.detector import Detector
from edge_ad.models.grid import embed_on_grid, local_average
from edge_ad.models.leave_one_out import FEWEST, LeftOut
from edge_ad.models.machine import check_memory
from edge_ad_runtime.errors import ConfigError

logger = logging.getLogger(__name__)

DEFAULT_DIMS = 64
"""Channels of a stored patch: on three classes within 0.04 points of all 176."""


class SPADE(Detector):
    """k nearest training pictures by pooled features; the map from the patches of those pictures.

    Cohen & Hoshen, 2020, https://arxiv.org/abs/2005.02357. Each value of the map is the Euclidean
    distance of a patch to the nearest patch of the k pictures (sec. 3.3). The score is the highest
    of them or, with `image_score="retrieval"`, the paper's mean distance to the k pictures (sec.
    3.2), in a unit of its own. Larger is more anomalous, without bound.
    """

    method: ClassVar[str] = SpadeConfig.method
    config: SpadeConfig
    pooled: Tensor
    gallery: Tensor
    projection: Tensor

    @takes_options(SpadeConfig)
    def __init__(self, config: SpadeConfig) -> None:
        """Set up an unfitted detector.

        The deepest of the layers gives the pooled features, the others give the map.

        Raises:
            EdgeAdError: fewer than two layers, or more channels than there are; and see `Detector`.
        """
        super().__init__(config)
        if len(self.backbone.layers) < 2:
            raise ConfigError(
                "expected at least 2 layers, the deepest to retrieve pictures and the others for "
                f"the map, got {len(self.backbone.layers)}: name more --layers"
            )
        patch_channels = self.n_channels - self.backbone.layers[-1].channels
        self.dims = _check_dims(config.dims, patch_channels)
        self.config = replace(self.config, dims=self.dims)
        self.register_buffer("projection", _projection(patch_channels, self.dims, config.seed))
        self.register_buffer("pooled", torch.empty(0))
        self.register_buffer("gallery", torch.empty(0))

    @classmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Three stages for the map, the last one to retrieve pictures."""
        return (4, 8, 16, 32)

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Describe frames (N, h, w, 3): pooled features (N, C), patches (N, patches, dims)."""
        *maps, deepest = self.backbone(self.backbone.normalise(frames))
        averaged = local_average(maps, self.config.patch_size)
        patches = embed_on_grid(averaged, self.grid).flatten(2).transpose(1, 2)
        return deepest.mean(dim=(2, 3)), patches @ self.projection

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> LeftOut:
        """Store every picture: pooled in float32, its patches in float16."""
        positions = self.grid[0] * self.grid[1]
        check_memory(
            n_frames * positions * self.dims * 2,
            self.device,
            advice="use fewer --dims, fewer pictures, a smaller --input-size or a coarser grid",
        )
        gallery = torch.empty(n_frames, positions, self.dims, dtype=torch.half, device=self.device)
        pooled: list[Tensor] = []
        filled = 0
        for frames in batches:
            descriptors, patches = self.embed(frames)
            pooled.append(descriptors)
            gallery[filled : filled + len(patches)] = patches.half()
            filled += len(patches)
        self.pooled = torch.cat(pooled)
        self.gallery = gallery[:filled]
        if self.config.k > filled:
            logger.warning("there are %d training pictures, so k is %d", filled, filled)
        return self._left_out()

    def _left_out(self) -> LeftOut:
        """Score each picture of the gallery against the others."""
        scores, distances = [self.pooled.new_empty(0)], [self.gallery.new_empty(0).float()]
        n = len(self.pooled)
        for picture in range(n if n >= FEWEST else 0):
            own = slice(picture, picture + 1)
            score, nearest = self._retrieve(self.pooled[own], without=picture)
            scores.append(score)
            distances.append(self._patch_distance(self.gallery[own].float(), nearest))
        by_map = self.config.image_score == "map"
        return LeftOut(distance=torch.cat(distances), score=None if by_map else torch.cat(scores))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        pooled, patches = self.embed(frames)
        score, nearest = self._retrieve(pooled)
        anomaly_map = self.smooth(self._patch_distance(patches, nearest))
        if self.config.image_score == "map":
            return anomaly_map.amax(dim=(1, 2)), anomaly_map
        return score, anomaly_map

    def _retrieve(self, pooled: Tensor, *, without: int | None = None) -> tuple[Tensor, Tensor]:
        """Find the k nearest pictures of pooled features (N, C): mean distance (N,), which (N, k).

        `without` is a picture that is not in the gallery for this search.
        """
        k = min(self.config.k, len(self.pooled) - (without is not None))
        # By subtraction: a product is accurate to a fraction of the norms, not of the distance, and
        # the exported graph would retrieve another picture where two are nearly as far away.
        squared = (pooled[:, None] - self.pooled).square().sum(dim=2)
        if without is not None:
            squared[:, without] = torch.inf
        nearest = squared.topk(k, dim=1, largest=False)
        return nearest.values.sqrt().mean(dim=1), nearest.indices

    def _patch_distance(self, patches: Tensor, pictures: Tensor) -> Tensor:
        """Distance of patches (N, P, d) to the nearest one of the pictures (N, k): (N, P)."""
        compare = self._at_position if self.config.gallery_rule == "position" else self._anywhere
        # One retrieved picture at a time keeps the memory at one gallery entry per frame.
        nearest = compare(patches, self.gallery[pictures[:, 0]].float())
        for rank in range(1, pictures.shape[1]):
            other = compare(patches, self.gallery[pictures[:, rank]].float())
            nearest = torch.minimum(nearest, other)
        return nearest.clamp(min=0).sqrt()

    @staticmethod
    def _at_position(patches: Tensor, good: Tensor) -> Tensor:
        """Squared distance to the patch at the same position: (N, P)."""
        return (patches - good).square().sum(dim=2)

    @staticmethod
    def _anywhere(patches: Tensor, good: Tensor) -> Tensor:
        """Squared distance to the nearest patch at any position: (N, P)."""
        products = patches @ good.transpose(1, 2)
        nearest = (good.square().sum(dim=2)[:, None] - 2 * products).amin(dim=2)
        return nearest + patches.square().sum(dim=2)


def _check_dims(dims: int | str | None, channels: int) -> int:
    if dims is None:
        return min(DEFAULT_DIMS, channels)
    if dims == "all":
        return channels
    if isinstance(dims, str) or not 1 <= dims <= channels:
        raise ConfigError(
            f"expected dims from 1 to {channels}, the channels of a patch, or 'all', got {dims!r}"
        )
    return dims


def _projection(channels: int, dims: int, seed: int) -> Tensor:
    """Draw an orthogonal projection that keeps distances on average: (channels, dims)."""
    if dims == channels:
        return torch.eye(channels)
    generator = torch.Generator().manual_seed(seed)
    orthogonal = torch.linalg.qr(torch.randn(channels, dims, generator=generator)).Q
    scaled: Tensor = orthogonal * (channels / dims) ** 0.5
    return scaled
