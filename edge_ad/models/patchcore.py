"""PatchCore: the distance of each patch to a small memory of good patches."""

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from edge_ad.config import PatchCoreConfig, takes_options
from edge_ad.models.grid import embed_on_grid, local_average
from edge_ad.models.leave_one_out import LeftOut
from edge_ad.models.memory_bank import GoodPatches, image_score, nearest_distance
from edge_ad.models.turns import TurningDetector

logger = logging.getLogger(__name__)

PATCH_SIZE = 3
"""Side of the window over which feature maps are averaged: the paper's p."""


class PatchCore(TurningDetector):
    """Nearest neighbour distance per patch to a greedy coreset of all training patches.

    Roth et al., 2021, https://arxiv.org/abs/2106.08265. Scores are Euclidean distances, weighted
    by eq. 7; larger is more anomalous; unbounded above.
    """

    method: ClassVar[str] = PatchCoreConfig.method
    config: PatchCoreConfig
    memory: Tensor
    owners: Tensor
    """(rows,), int32: the picture of the fit that each row comes from; -1: not known."""

    @takes_options(PatchCoreConfig)
    def __init__(self, config: PatchCoreConfig) -> None:
        """Set up an unfitted detector; raises what `Detector` raises."""
        super().__init__(config)
        self.register_buffer("memory", torch.empty(0))
        self.register_buffer("owners", torch.empty(0, dtype=torch.int32))

    @classmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Strides of the two middle stages."""
        return (8, 16)

    def embed(self, frames: Tensor) -> Tensor:
        """Describe each patch of frames (N, h, w, 3): (N, patches, channels)."""
        maps = self.backbone(self.backbone.normalise(frames))
        pooled = local_average(maps, PATCH_SIZE)
        return embed_on_grid(pooled, self.grid).flatten(2).transpose(1, 2)

    def describe(self, frames: Tensor) -> Tensor:
        """Describe each patch as the memory does; see `TurningDetector.describe`."""
        return self.embed(frames)

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> LeftOut:
        """Collect all patches of frames (n, h, w, 3), then keep the coreset."""
        n_patches = self.grid[0] * self.grid[1]
        good = GoodPatches(
            n_frames,
            n_patches,
            self.n_channels,
            self.config.coreset,
            seed=self.config.seed,
            device=self.device,
            copies=self.turns,
        )
        for frames in self.turned(batches):
            good.add(self.embed(frames))
        bank = good.choose(f"{self.method} coreset")
        self.memory, self.owners = bank.rows, bank.owners
        if self.config.neighbours > len(self.memory):
            logger.warning(
                "the memory has %d rows, so %d neighbours are used instead of %d",
                len(self.memory),
                len(self.memory),
                self.config.neighbours,
            )
        return good.left_out(bank, self.config.neighbours, f"{self.method} coreset")

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        patches = self.embed(frames)
        distance = nearest_distance(patches, self.memory)  # (N, patches)
        score = image_score(patches, distance, self.memory, self.config.neighbours)
        return score, self.smooth(distance)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Take over a saved state; the first version did not keep whose the rows are."""
        if f"{prefix}owners" not in state_dict:
            unknown = torch.full((len(self.memory),), -1, dtype=torch.int32)
            self.owners = state_dict[f"{prefix}owners"] = unknown
        super()._load_from_state_dict(state_dict, prefix, *arguments)
