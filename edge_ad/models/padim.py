"""PaDiM: one Gaussian per position over the concatenated feature maps."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from edge_ad.config import PaDiMConfig, takes_options
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad.models.grid import embed_on_grid, local_average
from edge_ad.models.leave_one_out import LeftOut
from edge_ad.models.machine import check_memory
from edge_ad.models.turns import TurningDetector
from edge_ad_runtime.errors import ConfigError

ALL_CHANNELS_UP_TO = 200
"""With this many channels or fewer, all are used by default: the Lite backbones have 176 to 192."""

DEFAULT_DIMS = 100
"""Channels drawn from larger backbones by default: the paper's choice for ResNet-18."""


class GaussianDetector(TurningDetector):
    """What PaDiM and Fusion share: one Gaussian per position, over channels that are drawn once."""

    config: PaDiMConfig
    mean_whitened: Tensor
    whitening: Tensor
    channels: Tensor

    def __init__(self, config: PaDiMConfig) -> None:
        """Choose the channels; nothing is learnt yet.

        Raises:
            EdgeAdError: more channels than there are; and see `Detector`.
        """
        super().__init__(config)
        self.dims = _choose_dims(config.dims, self.n_channels)
        self.config = replace(self.config, dims=self.dims)
        self._asked_pooling = config.pooling
        channels = _draw_channels(self.n_channels, self.dims, config.seed)
        self.register_buffer("channels", channels)
        self.register_buffer("mean_whitened", torch.empty(0))
        self.register_buffer("whitening", torch.empty(0))

    @classmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Strides of the feature maps that are used unless `layers` says otherwise."""
        return (4, 8, 16)

    def drawn(self, features: Tensor) -> Tensor:
        """Return the channels of the Gaussians: (N, n_channels, ...) to (N, dims, ...)."""
        return features[:, self.channels] if self.dims < self.n_channels else features

    def fit_gaussians(self, batches: Iterable[Tensor]) -> Tensor:
        """Learn from features (positions, dims, N) in one pass; `config.pooling` says what came.

        Copies of a picture stand beside each other, as `turned` yields them.

        Returns:
            The distance of each picture to the Gaussians of all others: (pictures, positions).

        Raises:
            EdgeAdError: the Gaussians do not fit into memory.
        """
        check_memory(
            2 * self.grid[0] * self.grid[1] * self.dims**2 * 4,
            self.device,
            advice="use fewer --dims, a coarser --grid-stride or a smaller --input-size",
        )
        with closing(GaussianStatistics(self.turns)) as statistics:
            for features in batches:
                statistics.add(features)
            share = statistics.pool(self.grid, self._asked_pooling, self.config.epsilon)
            self.config = replace(self.config, pooling=share)
            self.mean_whitened, self.whitening = statistics.whitening(self.config.epsilon)
            return statistics.left_out(self.mean_whitened, self.whitening, self.config.epsilon)

    def gaussian_distance(self, features: Tensor) -> Tensor:
        """Return the Mahalanobis distance of features (positions, dims, N): (N, positions)."""
        # With cov = L L^T, the distance^2 = |L^-1 (x - mean)|^2 = |L^-1 x - L^-1 mean|^2.
        whitened = self.whitening @ features - self.mean_whitened[:, :, None]
        return (whitened * whitened).sum(dim=1).sqrt().T


class PaDiM(GaussianDetector):
    """One Gaussian per position; the score is the Mahalanobis distance, not squared (eq. 2).

    Defard et al., 2020, https://arxiv.org/abs/2011.08785. Larger is more anomalous, without bound.
    """

    method: ClassVar[str] = PaDiMConfig.method

    @takes_options(PaDiMConfig)
    def __init__(self, config: PaDiMConfig) -> None:
        """Set up an unfitted detector; raises what `GaussianDetector` raises."""
        super().__init__(config)

    def embed(self, frames: Tensor) -> Tensor:
        """Describe each position of frames (N, h, w, 3): (positions, dims, N)."""
        maps = self.backbone(self.backbone.normalise(frames))
        features = embed_on_grid(local_average(maps, self.config.patch_size), self.grid)
        return self.drawn(features).flatten(2).permute(2, 1, 0)

    def describe(self, frames: Tensor) -> Tensor:
        """Describe each patch as the Gaussians do; see `TurningDetector.describe`."""
        return self.embed(frames).permute(2, 0, 1)

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> LeftOut:
        """One pass over frames (n, h, w, 3): sums, outer products and the features in float16."""
        del n_frames  # from half a gigabyte on, the features go to disk
        return LeftOut(distance=self.fit_gaussians(map(self.embed, self.turned(batches))))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        anomaly_map = self.smooth(self.gaussian_distance(self.embed(frames)))
        return anomaly_map.amax(dim=(1, 2)), anomaly_map


def _choose_dims(dims: int | str | None, n_channels: int) -> int:
    """Return how many of the channels of the chosen layers the Gaussians have.

    Raises:
        ConfigError: more than there are.
    """
    if dims is None:
        return n_channels if n_channels <= ALL_CHANNELS_UP_TO else DEFAULT_DIMS
    if dims == "all":
        return n_channels
    if isinstance(dims, str) or not 1 <= dims <= n_channels:
        raise ConfigError(
            f"expected dims from 1 to {n_channels}, the channels of the chosen layers, or 'all', "
            f"got {dims!r}: lower --dims or choose more --layers"
        )
    return dims


def _draw_channels(n_channels: int, dims: int, seed: int) -> Tensor:
    """Draw `dims` of the channels once, in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n_channels, generator=generator)[:dims].sort().values
