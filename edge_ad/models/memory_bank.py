"""PatchCore's memory of good patches: how it is chosen, and what patches score against it.

Distances are Euclidean and come from one matrix product; the full matrix never exists.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edge_ad.models.coreset import (
    coreset_memory_bytes,
    greedy_cover,
    project,
    projected_width,
)
from edge_ad.models.good import FEWEST, LeftOut
from edge_ad.models.machine import check_memory
from edge_ad.progress import Bar

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096
"""Memory rows compared at a time: bounds the intermediate to patches x 4096."""

FOLDS = 5
ROUNDING = 1e-4
CROSS_FIT_BELOW = 0.05
"""Share of the patches in the memory. A small memory holds the oddest patches of each picture, and
without them the picture scores higher than a new one: by 3 % at a share of 0.1, by 4 to 14 % at
0.01. There, other memories are chosen without each fifth of the pictures."""


def squared_distances(points: Tensor, memory: Tensor) -> Tensor:
    """Return |x - m|^2 for points (n, d) and memory (m, d): (n, m), up to a constant per point.

    |x|^2 is left out, since it does not change which row is nearest.
    """
    return memory.square().sum(dim=1) - 2 * points @ memory.T


def nearest_distance(points: Tensor, memory: Tensor) -> Tensor:
    """Return the distance of points (..., d) to their nearest row of the memory (m, d): (...).

    The products only choose the row. A distance from them would be the small difference of large
    squares: where norms are near 500 and distances near 6, it is wrong by 0.1 % in float32, and
    the score of eq. 7 of PatchCore by 3 %.
    """
    flat = points.flatten(0, -2)
    squared = []
    for block in torch.split(memory, BLOCK_ROWS):
        nearest = block[squared_distances(flat, block).argmin(dim=1)]
        squared.append((flat - nearest).square().sum(dim=1))
    return torch.stack(squared).amin(dim=0).sqrt().reshape(points.shape[:-1])


@dataclass(frozen=True, kw_only=True)
class MemoryBank:
    """Chosen rows of good patches.

    Attributes:
        rows: (m, channels), float32.
        owners: (m,), int32, which picture of the fit each row comes from.
        distance: (n, patches), of all patches that it was chosen from to their nearest row; None:
            only known in a projection or in float16.
    """

    rows: Tensor
    owners: Tensor
    distance: Tensor | None


class GoodPatches:
    """All patches of the pictures of a fit, and the memory that is chosen from them."""

    def __init__(
        self,
        n_pictures: int,
        n_patches: int,
        channels: int,
        coreset: float | int,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        """Make room for n_pictures x n_patches patches.

        Args:
            n_pictures: in the fit, at most.
            n_patches: of a picture.
            channels: of a patch.
            coreset: share of the patches to keep (a float up to 1.0), or their number.
            seed: draws the projection, the first pick of the coreset and the folds.
            device: where patches and memory lie.

        Raises:
            EdgeAdError: they do not fit into memory.
        """
        self._coreset = coreset
        self._seed = seed
        self._device = device
        self._filled = 0
        self._check_memory(n_pictures * n_patches, channels)
        self._patches = torch.empty(n_pictures, n_patches, channels, device=device)

    def add(self, patches: Tensor) -> None:
        """Take the patches of some pictures: (n, n_patches, channels)."""
        self._patches[self._filled : self._filled + len(patches)] = patches
        self._filled += len(patches)

    @property
    def patches(self) -> Tensor:
        """What was added: (n, n_patches, channels)."""
        return self._patches[: self._filled]

    def choose(self, description: str) -> MemoryBank:
        """Keep the coreset of all patches; `description` titles the progress bar."""
        return self._choose(torch.arange(self._filled, device=self._device), description)

    def left_out(self, bank: MemoryBank, neighbours: int, description: str) -> LeftOut:
        """Score each picture against what the memory would be without it.

        Args:
            bank: as `choose` returned it.
            neighbours: b of eq. 7; 1: no re-weighting.
            description: title of the progress bar.
        """
        patches = self.patches
        n, n_patches, _ = patches.shape
        distance = patches.new_zeros(n, n_patches)
        score = patches.new_zeros(n)
        if n < FEWEST:
            return LeftOut(distance=distance[:0], score=score[:0])
        share = len(bank.rows) / (n * n_patches)
        one_owner = bool((bank.owners == bank.owners[0]).all())
        cross_fit = share < CROSS_FIT_BELOW or one_owner
        with Bar(n, f"{description} leave-one-out", unit="picture") as bar:
            for picture, rows in self._cross_fits(description) if cross_fit else self._masked(bank):
                own = patches[picture]
                if cross_fit or bank.distance is None:
                    to_others = nearest_distance(own, rows)
                else:
                    own_rows = bank.rows[bank.owners == picture]
                    to_others = _distance_to_others(own, own_rows, rows, bank.distance[picture])
                distance[picture] = to_others
                score[picture] = image_score(own[None], to_others[None], rows, neighbours)
                bar.update()
        return LeftOut(distance=distance, score=score, method="cross-fit" if cross_fit else "loo")

    def _masked(self, bank: MemoryBank) -> Iterator[tuple[int, Tensor]]:
        """Yield each picture with the rows of the others."""
        for picture in range(self._filled):
            yield picture, bank.rows[bank.owners != picture]

    def _cross_fits(self, description: str) -> Iterator[tuple[int, Tensor]]:
        """Yield each picture with a memory that was chosen without its fifth of the pictures."""
        order = np.random.default_rng(self._seed).permutation(self._filled)
        folds = np.array_split(order, min(FOLDS, self._filled))
        for number, fold in enumerate(folds, start=1):
            others = torch.from_numpy(np.sort(np.setdiff1d(order, fold))).to(self._device)
            bank = self._choose(others, f"{description} {number} of {len(folds)}")
            for picture in fold.tolist():
                yield picture, bank.rows

    def _choose(self, pictures: Tensor, description: str) -> MemoryBank:
        n_patches = self._patches.shape[1]
        complete = len(pictures) == self._filled
        chosen = (self.patches if complete else self.patches[pictures]).flatten(0, 1)
        projected = project(chosen, seed=self._seed, dtype=_coreset_dtype(self._device))
        picks, distance = greedy_cover(
            projected, self._count(len(chosen)), seed=self._seed, description=description
        )
        return MemoryBank(
            rows=chosen[picks].clone(),
            owners=pictures[picks // n_patches].to(torch.int32),
            distance=distance.reshape(-1, n_patches) if projected is chosen else None,
        )

    def _count(self, n_patches: int) -> int:
        if isinstance(self._coreset, float):
            return max(1, int(self._coreset * n_patches))
        return min(self._coreset, n_patches)

    def _check_memory(self, n_patches: int, channels: int) -> None:
        """Compare the peak of the fit: all patches and their copies with what is free."""
        width, dtype = projected_width(n_patches, channels), _coreset_dtype(self._device)
        size = coreset_memory_bytes(n_patches, width, dtype)
        if width < channels or dtype != torch.float32:
            size += n_patches * channels * 4
        if self._count(n_patches) < CROSS_FIT_BELOW * n_patches:
            size += n_patches * channels * 4  # the patches of four folds, once more
        check_memory(
            size,
            self._device,
            advice="use fewer pictures, a smaller --input-size or a coarser --grid-stride",
        )


def _distance_to_others(
    patches: Tensor, own_rows: Tensor, other_rows: Tensor, to_all: Tensor
) -> Tensor:
    """Return the distances of a picture's patches (P, C) to the rows of other pictures: (P,).

    The distances to all rows, `to_all` (P,), are those, wherever the picture's own rows are
    farther away: only the other patches, a tenth as measured, are searched for.
    """
    if len(own_rows) == 0:
        return to_all
    own_nearest = nearest_distance(patches, own_rows) <= to_all * (1 + ROUNDING)
    distance = to_all.clone()
    distance[own_nearest] = nearest_distance(patches[own_nearest], other_rows)
    return distance


def image_score(patches: Tensor, distance: Tensor, memory: Tensor, neighbours: int) -> Tensor:
    """Score each image by its farthest patch: s = w s* (PatchCore, eq. 6 and 7).

    Args:
        patches: (N, patches, channels).
        distance: (N, patches), of each patch to the nearest row of the memory.
        memory: (m, channels).
        neighbours: b of eq. 7, memory rows around the nearest one; 1: no re-weighting.

    Returns:
        Scores (N,).
    """
    score, farthest = distance.max(dim=1)  # s*, and where m_test* is
    neighbours = min(neighbours, memory.shape[0])
    if neighbours == 1:
        return score
    index = farthest[:, None, None].expand(-1, 1, patches.shape[2])
    patch = patches.gather(1, index)[:, 0]  # m_test*: (N, channels)
    nearest = memory[squared_distances(patch, memory).argmin(dim=1)]  # m*
    around = squared_distances(nearest, memory).topk(neighbours, largest=False).indices
    to_neighbours = (patch[:, None] - memory[around]).square().sum(dim=2).sqrt()
    # exp(s*) / sum exp(d), where an overflow of the sum is a share of 0, as it should be. Not a
    # log-sum-exp: not every runtime of the exported graph computes that one without overflow.
    inverse_share = (to_neighbours - score[:, None]).exp().sum(dim=1)
    return score - score / inverse_share


def _coreset_dtype(device: torch.device) -> torch.dtype:
    """A GPU picks in float16, twice as fast; a CPU has no arithmetic for it."""
    return torch.float16 if device.type == "cuda" else torch.float32
