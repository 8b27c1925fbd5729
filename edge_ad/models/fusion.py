"""Fusion: PaDiM's Gaussians and PatchCore's memory on the same features."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from edge_ad.config import FusionConfig, takes_options
from edge_ad.models.grid import embed_on_grid, local_average
from edge_ad.models.leave_one_out import LeftOut
from edge_ad.models.memory_bank import GoodPatches, nearest_distance
from edge_ad.models.padim import GaussianDetector

DEFAULT_SHARE = 0.01
FEWEST_ROWS = 1000
"""A hundredth of the patches of 10 pictures describes them too coarsely: with a thousand patches
ten good parts of commutator gain 0.8 points of image AUROC."""


class Fusion(GaussianDetector):
    """The sum of PaDiM's and PatchCore's distances, each in units of its spread on good parts.

    A Gaussian per position sees what is unusual at its place; the memory sees what is unusual
    anywhere. Where one of them is blind, the other one is not, and where both see a defect the sum
    stands out more clearly from the noise of the good parts. One pass of the backbone serves both:
    the memory holds those channels whose feature maps are not finer than the grid of patches,
    or all of them where every map is finer.

    The unit of score and map is one standard deviation of a distance on good parts; larger is more
    anomalous, without bound. The score is the highest value of the map.
    """

    method: ClassVar[str] = FusionConfig.method
    config: FusionConfig
    memory: Tensor
    owners: Tensor
    """(rows,), int32: the picture of the fit that each row of the memory comes from."""
    weights: Tensor
    """(2,): what a distance to the Gaussians, and one to the memory, is multiplied by."""

    @takes_options(FusionConfig)
    def __init__(self, config: FusionConfig) -> None:
        """Set up an unfitted detector; raises what `GaussianDetector` raises."""
        super().__init__(config)
        finer = [layer for layer in self.backbone.layers if layer.stride < config.grid_stride]
        n_finer = sum(layer.channels for layer in finer)
        self.n_finer = n_finer if n_finer < self.n_channels else 0
        self.register_buffer("memory", torch.empty(0))
        self.register_buffer("owners", torch.empty(0, dtype=torch.int32))
        self.register_buffer("weights", torch.empty(0))

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Describe each position of frames (N, h, w, 3), for the Gaussians and for the memory.

        Returns:
            (positions, dims, N) and (N, positions, channels).
        """
        maps = self.backbone(self.backbone.normalise(frames))
        features = embed_on_grid(local_average(maps, self.config.patch_size), self.grid).flatten(2)
        return self.drawn(features).permute(2, 1, 0), features[:, self.n_finer :].transpose(1, 2)

    def describe(self, frames: Tensor) -> Tensor:
        """Describe each patch as the memory does; see `TurningDetector.describe`."""
        return self.embed(frames)[1]

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> LeftOut:
        """One pass over frames (n, h, w, 3) for the Gaussians and the memory."""
        n_patches = self.grid[0] * self.grid[1]
        good = GoodPatches(
            n_frames,
            n_patches,
            self.n_channels - self.n_finer,
            self._memory_size(n_frames * n_patches),
            seed=self.config.seed,
            device=self.device,
            copies=self.turns,
        )

        def features_of_batches() -> Iterator[Tensor]:
            for frames in self.turned(batches):
                features, patches = self.embed(frames)
                good.add(patches)
                yield features

        gaussian = self.fit_gaussians(features_of_batches())
        bank = good.choose(f"{self.method} coreset")
        self.memory, self.owners = bank.rows, bank.owners
        memory = good.left_out(bank, neighbours=1, description=f"{self.method} coreset")
        self.weights = _inverse_spread(gaussian, memory.distance)
        fused = self._fuse(gaussian[: len(memory.distance)], memory.distance)
        return LeftOut(distance=fused)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        features, patches = self.embed(frames)
        to_memory = nearest_distance(patches, self.memory)
        anomaly_map = self.smooth(self._fuse(self.gaussian_distance(features), to_memory))
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def _memory_size(self, n_patches: int) -> float | int:
        """Return the share of the patches of the fit to keep, or their number."""
        if self.config.coreset is not None:
            return self.config.coreset
        return DEFAULT_SHARE if DEFAULT_SHARE * n_patches > FEWEST_ROWS else FEWEST_ROWS

    def _fuse(self, gaussian: Tensor, memory: Tensor) -> Tensor:
        # No means are taken off, so that the map stays at or above zero.
        return gaussian * self.weights[0] + memory * self.weights[1]


def _inverse_spread(gaussian: Tensor, memory: Tensor) -> Tensor:
    """Return 1 / standard deviation of left-out distances (n, positions) to each of both: (2,).

    Ones where a spread cannot be measured, because there are too few pictures or all are equal.
    """
    spreads = [
        distance.double().std() if distance.numel() > 1 else torch.ones(())
        for distance in (gaussian, memory)
    ]
    spread = torch.stack([one.float().to(gaussian.device) for one in spreads])
    return torch.where(spread > 0, 1 / spread, 1.0)
