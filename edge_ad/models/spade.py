"""SPADE: the k nearest good pictures, then the nearest patches among theirs."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from edge_ad.models.detector import Detector
from edge_ad.models.features import check_patch_size, embed_on_grid, local_average
from edge_ad.models.memory import check_memory
from edge_ad.models.nearest import squared_distances
from edge_ad_runtime.errors import EdgeAdError

logger = logging.getLogger(__name__)

GALLERIES = ("position", "full")

DEFAULT_DIMS = 64
"""Channels of a stored patch: on three classes within 0.04 points of all 176."""


class SPADE(Detector):
    """k nearest training pictures by pooled features; the map from the patches of those pictures.

    Cohen & Hoshen, 2020, https://arxiv.org/abs/2005.02357. The image score is the mean Euclidean
    distance to the k pictures (sec. 3.2), each map value that of a patch to the nearest patch of
    the gallery (sec. 3.3). Larger is more anomalous; both unbounded above, each in its own unit.
    """

    method: ClassVar[str] = "spade"
    pooled: Tensor
    gallery: Tensor
    projection: Tensor

    def __init__(
        self,
        *,
        backbone: str = "efficientnet_lite0",
        layers: Sequence[str] | None = None,
        weights: str = "pretrained",
        input_size: tuple[int, int] | None = None,
        resize: int | None = None,
        device: str = "auto",
        seed: int = 0,
        k: int = 50,
        gallery_rule: str = "position",
        dims: int | str | None = None,
        patch_size: int = 3,
        sigma: float = 4.0,
        grid_stride: int = 8,
    ) -> None:
        """Set up an unfitted detector; the arguments of all detectors are described there.

        Args:
            backbone: see `Detector`.
            layers: feature maps by name, the deepest for the pooled features, the others for the
                map; None: those of stride 4, 8, 16 and 32.
            weights: see `Detector`.
            input_size: see `Detector`.
            resize: see `Detector`.
            device: see `Detector`.
            seed: draws the projection.
            k: training pictures to retrieve.
            gallery_rule: `position`: patches at the same position only; `full`: at any position.
            dims: channels of a stored patch after a random projection, or `all` for no projection;
                None: 64, which costs next to nothing (docs/detectors.md).
            patch_size: side of the window over which feature maps are averaged; the paper has 1.
            sigma: width of the Gaussian blur of the map in input pixels.
            grid_stride: input pixels between two patches.

        Raises:
            EdgeAdError: a value is out of its range, with what was expected.
        """
        super().__init__(
            backbone=backbone,
            layers=layers,
            weights=weights,
            input_size=input_size,
            resize=resize,
            device=device,
            seed=seed,
            sigma=sigma,
            grid_stride=grid_stride,
        )
        if k < 1:
            raise EdgeAdError(f"expected k of 1 or more pictures, got {k}")
        if gallery_rule not in GALLERIES:
            raise EdgeAdError(f"expected a gallery rule of {GALLERIES}, got {gallery_rule!r}")
        if len(self.backbone.layers) < 2:
            raise EdgeAdError(
                "expected at least 2 layers, the deepest to retrieve pictures and the others for "
                f"the map, got {len(self.backbone.layers)}: name more --layers"
            )
        self.k = k
        self.gallery_rule = gallery_rule
        self.patch_size = check_patch_size(patch_size)
        patch_channels = self.n_channels - self.backbone.layers[-1].channels
        self.dims = _check_dims(dims, patch_channels)
        self.register_buffer("projection", _projection(patch_channels, self.dims, seed))
        self.register_buffer("pooled", torch.empty(0))
        self.register_buffer("gallery", torch.empty(0))

    @classmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Three stages for the map, the last one to retrieve pictures."""
        return (4, 8, 16, 32)

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this detector."""
        return super().options() | {
            "k": self.k,
            "gallery_rule": self.gallery_rule,
            "dims": self.dims,
            "patch_size": self.patch_size,
        }

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Describe frames (N, h, w, 3): pooled features (N, C), patches (N, patches, dims)."""
        *maps, deepest = self.backbone(self.backbone.normalise(frames))
        averaged = local_average(maps, self.patch_size)
        patches = embed_on_grid(averaged, self.grid).flatten(2).transpose(1, 2)
        return deepest.mean(dim=(2, 3)), patches @ self.projection

    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> None:
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
        if self.k > filled:
            logger.warning("there are %d training pictures, so k is %d", filled, filled)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames; see `Detector.forward`."""
        pooled, patches = self.embed(frames)
        k = min(self.k, self.pooled.shape[0])
        nearest = squared_distances(pooled, self.pooled).topk(k, dim=1, largest=False).indices
        # Not from the products: they are accurate to a fraction of the norms, not of the distance.
        to_k = (pooled[:, None] - self.pooled[nearest]).square().sum(dim=2).sqrt()  # (N, k)
        score = to_k.mean(dim=1)
        distance = self._patch_distance(patches, nearest)
        return score, self.smoothing(distance.reshape(-1, *self.grid))

    def _patch_distance(self, patches: Tensor, pictures: Tensor) -> Tensor:
        """Distance of patches (N, P, d) to the nearest one of the pictures (N, k): (N, P)."""
        compare = self._at_position if self.gallery_rule == "position" else self._anywhere
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
        raise EdgeAdError(
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
