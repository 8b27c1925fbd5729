"""PatchCore: the distance of each patch to a small memory of good patches."""

import logging
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from edge_ad.config import PatchCoreConfig
from edge_ad.models.coreset import (
    coreset_memory_bytes,
    greedy_coreset,
    project,
    projected_width,
)
from edge_ad.models.detector import Detector, takes_options
from edge_ad.models.features import embed_on_grid, local_average
from edge_ad.models.memory import check_memory
from edge_ad.models.nearest import nearest_distance, squared_distances

logger = logging.getLogger(__name__)

PATCH_SIZE = 3
"""Side of the window over which feature maps are averaged: the paper's p."""


class PatchCore(Detector):
    """Nearest neighbour distance per patch to a greedy coreset of all training patches.

    Roth et al., 2021, https://arxiv.org/abs/2106.08265. Scores are Euclidean distances, weighted
    by eq. 7; larger is more anomalous; unbounded above.
    """

    method: ClassVar[str] = PatchCoreConfig.method
    config: PatchCoreConfig
    memory: Tensor

    @takes_options(PatchCoreConfig)
    def __init__(self, config: PatchCoreConfig) -> None:
        """Set up an unfitted detector; raises what `Detector` raises."""
        super().__init__(config)
        self.register_buffer("memory", torch.empty(0))

    @classmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Strides of the two middle stages."""
        return (8, 16)

    def embed(self, frames: Tensor) -> Tensor:
        """Describe each patch of frames (N, h, w, 3): (N, patches, channels)."""
        maps = self.backbone(self.backbone.normalise(frames))
        pooled = local_average(maps, PATCH_SIZE)
        return embed_on_grid(pooled, self.grid).flatten(2).transpose(1, 2)

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> None:
        """Collect all patches of frames (n, h, w, 3), then keep the coreset."""
        n_patches = n_frames * self.grid[0] * self.grid[1]
        check_memory(
            self._fit_bytes(n_patches),
            self.device,
            advice="use fewer pictures, a smaller --input-size or a coarser --grid-stride",
        )
        patches = torch.empty(n_patches, self.n_channels, device=self.device)
        filled = 0
        for frames in batches:
            batch = self.embed(frames).flatten(0, 1)
            patches[filled : filled + len(batch)] = batch
            filled += len(batch)
        patches = patches[:filled]
        picks = greedy_coreset(
            project(patches, seed=self.config.seed, dtype=self._coreset_dtype),
            self._count(filled),
            seed=self.config.seed,
            description=f"{self.method} coreset",
        )
        self.memory = patches[picks].clone()
        if self.config.neighbours > len(self.memory):
            logger.warning(
                "the memory has %d rows, so %d neighbours are used instead of %d",
                len(self.memory),
                len(self.memory),
                self.config.neighbours,
            )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        patches = self.embed(frames)
        distance = nearest_distance(patches, self.memory)  # (N, patches)
        anomaly_map = self.smoothing(distance.reshape(-1, *self.grid))
        return self._reweight(patches, distance), anomaly_map

    def _reweight(self, patches: Tensor, distance: Tensor) -> Tensor:
        """Score the image by its farthest patch: s = w s* (eq. 6 and 7), (N,)."""
        score, farthest = distance.max(dim=1)  # s*, and where m_test* is
        neighbours = min(self.config.neighbours, self.memory.shape[0])
        if neighbours == 1:
            return score
        index = farthest[:, None, None].expand(-1, 1, patches.shape[2])
        patch = patches.gather(1, index)[:, 0]  # m_test*: (N, channels)
        nearest = self.memory[squared_distances(patch, self.memory).argmin(dim=1)]  # m*
        around = squared_distances(nearest, self.memory).topk(neighbours, largest=False).indices
        to_neighbours = (patch[:, None] - self.memory[around]).square().sum(dim=2).sqrt()
        # exp(s*) / sum exp(d), where an overflow of the sum is a share of 0, as it should be. Not a
        # log-sum-exp: not every runtime of the exported graph computes that one without overflow.
        inverse_share = (to_neighbours - score[:, None]).exp().sum(dim=1)
        return score - score / inverse_share

    @property
    def _coreset_dtype(self) -> torch.dtype:
        """A GPU picks in float16, twice as fast; a CPU has no arithmetic for it."""
        return torch.float16 if self.device.type == "cuda" else torch.float32

    def _fit_bytes(self, n_patches: int) -> int:
        """Estimate the peak of the fit: all patches, and a projected copy where there is one."""
        width, dtype = projected_width(n_patches, self.n_channels), self._coreset_dtype
        size = coreset_memory_bytes(n_patches, width, dtype)
        copied = width < self.n_channels or dtype != torch.float32
        return size + n_patches * self.n_channels * 4 if copied else size

    def _count(self, n_patches: int) -> int:
        if isinstance(self.config.coreset, float):
            return max(1, int(self.config.coreset * n_patches))
        return min(self.config.coreset, n_patches)
