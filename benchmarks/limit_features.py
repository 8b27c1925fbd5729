"""Features of the pictures of a class, computed once, and detectors that look them up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.config import CONFIGS
from edge_ad.data import Dataset, Sample, choose_input_size, load_category
from edge_ad.models import SPADE, Fusion, PaDiM, PatchCore
from edge_ad.models.grid import embed_on_grid, local_average

MOST_GOOD, MOST_DEFECTIVE = 350, 120
"""Pictures of a class whose features are computed, drawn at random where there are more."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the backbone says about the pictures of a class, the good ones first.

    Attributes:
        grid: (n, channels, patches), float16: strides 4, 8 and 16, 3 x 3 averaged.
        pooled: (n, channels of stride 32), float32.
        n_good: how many are good.
        input_size: (height, width) in pixels.
    """

    grid: Tensor
    pooled: Tensor
    n_good: int
    input_size: tuple[int, int]

    @property
    def defective(self) -> Indices:
        """Indices of the pictures of defective parts."""
        return np.arange(self.n_good, len(self.pooled))


class CachedPaDiM(PaDiM):
    """PaDiM on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> Tensor:
        """Look pictures (N,) up: (positions, dims, N)."""
        return self.features.grid[frames].float().permute(2, 1, 0)


class CachedPatchCore(PatchCore):
    """PatchCore on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> Tensor:
        """Look pictures (N,) up, strides 8 and 16: (N, patches, channels)."""
        return self.features.grid[frames, -self.n_channels :].float().transpose(1, 2)


class CachedSPADE(SPADE):
    """SPADE on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Look pictures (N,) up: pooled features (N, C), patches (N, patches, dims)."""
        patches = self.features.grid[frames].float().transpose(1, 2) @ self.projection
        return self.features.pooled[frames], patches


class CachedFusion(Fusion):
    """Fusion on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Look pictures (N,) up: (positions, dims, N) and (N, positions, channels)."""
        grid = self.features.grid[frames].float()
        return grid.permute(2, 1, 0), grid[:, self.n_finer :].transpose(1, 2)


CACHED: dict[str, Any] = {
    "padim": CachedPaDiM,
    "patchcore": CachedPatchCore,
    "spade": CachedSPADE,
    "fusion": CachedFusion,
}


def load_features(name: str, preset: str, data_root: Path, cache: Path, step: int = 1) -> Features:
    """Return the features of a class, from the cache if they are there.

    Args:
        name: of the class.
        preset: fast or accurate.
        data_root: where its pictures lie.
        cache: where the features are kept.
        step: 2: only every second patch, across and down.
    """
    path = cache / f"{name}-{preset}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(compute_features(name, preset, data_root), path)
    stored = torch.load(path, mmap=True)
    return Features(
        grid=stored["grid"][:, :, ::step, ::step].flatten(2),
        pooled=stored["pooled"],
        n_good=stored["n_good"],
        input_size=stored["input_size"],
    )


def compute_features(name: str, preset: str, data_root: Path) -> dict[str, Any]:
    """Run the backbone over the good pictures of both splits and the defective ones."""
    category = load_category(name, data_root)
    samples = [*category.train, *category.test]
    good = drawn([item for item in samples if not item.anomalous], MOST_GOOD)
    defective = drawn([item for item in samples if item.anomalous], MOST_DEFECTIVE)
    options = CONFIGS["spade"].preset(preset)
    size = choose_input_size(category.train, area=options.get("size", 256) ** 2)
    detector = SPADE(**options, input_size=size)
    grid: list[Tensor] = []
    pooled: list[Tensor] = []
    everything = Dataset([*good, *defective])
    with torch.inference_mode():
        for _, frames in everything.batches(
            detector.preprocessing, batch_size=4, description=f"{name} features"
        ):
            images = detector.backbone.normalise(torch.from_numpy(frames))
            *maps, deepest = detector.backbone(images)
            grid.append(embed_on_grid(local_average(maps, 3), detector.grid).half())
            pooled.append(deepest.mean(dim=(2, 3)))
    return {
        "grid": torch.cat(grid),
        "pooled": torch.cat(pooled),
        "n_good": len(good),
        "input_size": size,
    }


def drawn(samples: list[Sample], most: int) -> list[Sample]:
    """Return all samples, or that many of them by chance, in their order."""
    chosen = np.random.default_rng(0).permutation(len(samples))[:most]
    return [samples[index] for index in sorted(chosen)]
