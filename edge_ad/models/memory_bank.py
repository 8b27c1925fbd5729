"""PatchCore's memory of good patches: how it is chosen, and what patches score against it.

Distances are Euclidean and come from one matrix product; the full matrix never exists.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.models.coreset import (
    coreset_memory_bytes,
    greedy_coreset,
    project,
    projected_width,
)
from edge_ad.models.leave_one_out import FEWEST, LeftOut
from edge_ad.models.machine import check_memory
from edge_ad.progress import Bar

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096
"""Memory rows compared at a time: bounds the intermediate to patches x 4096."""

PATCHES_AT_ONCE = 256
"""Patches that are compared with all rows at a time, where the memory is searched for its fit."""

HIGHEST, COMPARED = 4, 100_000
"""Patches of a left-out picture, those with the largest distances, for which rows are looked for
that the memory would have without the picture: they make its score and the peak of its map. More
than 4 where the memory is so small that they are quickly compared with all of its rows."""


def squared_distances(points: Tensor, memory: Tensor, norms: Tensor | None = None) -> Tensor:
    """Return |x - m|^2 for points (n, d) and memory (m, d): (n, m), up to a constant per point.

    |x|^2 is left out, since it does not change which row is nearest. `norms` (m,) are the squared
    norms of the memory's rows, where they are known; a row with an infinite one is never near.
    """
    if norms is None:
        norms = memory.square().sum(dim=1)
    return norms - 2 * points @ memory.T


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
        nearest: (n copies, patches), int64, the row that each of all patches is nearest to.
        distance: (n copies, patches), float32, to that row.
        exact: false where the rows were chosen in a projection or in float16, in which another row
            may be the nearest one.
    """

    rows: Tensor
    owners: Tensor
    nearest: Tensor
    distance: Tensor
    exact: bool


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
        copies: int = 1,
    ) -> None:
        """Make room for n_pictures x copies x n_patches patches.

        Args:
            n_pictures: in the fit, at most.
            n_patches: of a picture.
            channels: of a patch.
            coreset: share of the patches to keep (a float up to 1.0), or their number. A share is
                that of one copy of each picture, so that a memory is not larger with more copies.
            seed: draws the projection and the first pick of the coreset.
            device: where patches and memory lie.
            copies: of each picture, which are added one after the other and are left out together.
                The first one is the picture as it is.

        Raises:
            EdgeAdError: they do not fit into memory.
        """
        self._coreset = coreset
        self._seed = seed
        self._device = device
        self._copies = copies
        self._filled = 0
        self._check_memory(n_pictures * copies * n_patches, channels)
        self._patches = torch.empty(n_pictures * copies, n_patches, channels, device=device)

    def add(self, patches: Tensor) -> None:
        """Take the patches of some copies of pictures: (n, n_patches, channels)."""
        self._patches[self._filled : self._filled + len(patches)] = patches
        self._filled += len(patches)

    @property
    def patches(self) -> Tensor:
        """What was added: (n copies, n_patches, channels)."""
        return self._patches[: self._filled]

    def choose(self, description: str) -> MemoryBank:
        """Keep the coreset of all patches; `description` titles the progress bar."""
        n_patches = self._patches.shape[1]
        flat = self.patches.flatten(0, 1)
        projected = project(flat, seed=self._seed, dtype=_coreset_dtype(self._device))
        coreset = greedy_coreset(
            projected, self._count(len(flat)), seed=self._seed, description=description
        )
        rows, exact = flat[coreset.picks], projected is flat
        nearest = coreset.nearest.reshape(-1, n_patches)
        if exact:
            distance = coreset.distance.reshape(-1, n_patches)
        else:
            pairs = zip(self.patches, nearest, strict=True)
            distance = torch.stack([(own - rows[row]).square().sum(1).sqrt() for own, row in pairs])
        return MemoryBank(
            rows=rows,
            owners=(coreset.picks // (n_patches * self._copies)).to(torch.int32),
            nearest=nearest,
            distance=distance,
            exact=exact,
        )

    def left_out(self, bank: MemoryBank, neighbours: int, description: str) -> LeftOut:
        """Score each picture against what the memory would be without it.

        Its own rows and those of its copies are taken out of the memory. Patches of other pictures
        that were covered by these rows alone get rows of their own then, as in a fit without the
        picture: until none is farther from the memory than the farthest patch of the fit. Without
        them the scores would be too high, the more so the smaller the memory (benchmarks/limit.md).

        Args:
            bank: as `choose` returned it.
            neighbours: b of eq. 7; 1: no re-weighting.
            description: title of the progress bar.
        """
        patches, copies = self.patches, self._copies
        n, n_patches = len(patches) // copies, patches.shape[1]
        distance = patches.new_zeros(n, n_patches)
        score = patches.new_zeros(n)
        if n < FEWEST:
            return LeftOut(distance=distance[:0], score=score[:0])
        covered_by = bank.owners[bank.nearest]  # (n copies, patches): pictures
        radius = float(bank.distance.max())
        norms = bank.rows.square().sum(dim=1)
        with Bar(n, f"{description} leave-one-out", unit="picture") as bar:
            for picture, own in enumerate(patches[::copies]):
                first = picture * copies
                memory = _Rows(bank.rows, norms.masked_fill(bank.owners == picture, torch.inf))
                lost = covered_by == picture
                search = lost[first] if bank.exact else torch.ones_like(lost[first])
                to_others = bank.distance[first].clone()
                to_others[search], around = memory.nearest(own[search])
                lost[first : first + copies] = False
                uncovered = _beyond(patches[lost], bank.rows[torch.unique(around)], radius)
                new_rows = _chosen_again(own, to_others, uncovered, memory, radius)
                to_others = torch.minimum(to_others, _Rows.of(new_rows).nearest(own)[0])
                distance[picture] = to_others
                score[picture] = memory.with_rows(new_rows).score(own, to_others, neighbours)
                bar.update()
        return LeftOut(distance=distance, score=score)

    def _count(self, n_patches: int) -> int:
        if isinstance(self._coreset, float):
            return max(1, int(self._coreset * n_patches / self._copies))
        return min(self._coreset, n_patches)

    def _check_memory(self, n_patches: int, channels: int) -> None:
        """Compare the peak of the fit: all patches and their copies with what is free."""
        width, dtype = projected_width(n_patches, channels), _coreset_dtype(self._device)
        size = coreset_memory_bytes(n_patches, width, dtype)
        if width < channels or dtype != torch.float32:
            size += n_patches * channels * 4
        size += n_patches * (8 + 4)  # the nearest row of each, and its distance
        check_memory(
            size,
            self._device,
            advice="use fewer pictures, a smaller --input-size or a coarser --grid-stride",
        )


@dataclass(frozen=True)
class _Rows:
    """A memory of which some rows do not count: they are not copied without them each time.

    Attributes:
        rows: (m, channels).
        norms: (m,), their squared norms; infinite where a row does not count.
    """

    rows: Tensor
    norms: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "_Rows":
        """Count all rows (m, channels)."""
        return cls(rows, rows.square().sum(dim=1))

    def __len__(self) -> int:
        """How many rows count."""
        return int(self.norms.isfinite().sum())

    def with_rows(self, more: Tensor) -> "_Rows":
        """Return a memory that has more rows (r, channels)."""
        if len(more) == 0:
            return self
        added = _Rows.of(more)
        return _Rows(torch.cat([self.rows, more]), torch.cat([self.norms, added.norms]))

    def nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Find the nearest row of each of patches (P, C): distances (P,) and which rows (P,).

        Of no rows the distance is infinite, and none is the nearest.
        """
        if len(self) == 0 or len(patches) == 0:
            none = torch.empty(0, dtype=torch.int64, device=patches.device)
            return patches.new_full((len(patches),), torch.inf), none
        columns = self.rows.T
        parts = torch.split(patches, PATCHES_AT_ONCE)
        found = torch.cat(
            [torch.addmm(self.norms, part, columns, alpha=-2).argmin(dim=1) for part in parts]
        )
        return (patches - self.rows[found]).square().sum(dim=1).sqrt(), found

    def score(self, patches: Tensor, distance: Tensor, neighbours: int) -> Tensor:
        """Score the picture of patches (P, C) at distances (P,): `image_score`, a scalar."""
        count = min(neighbours, len(self))
        return image_score(patches[None], distance[None], self.rows, count, self.norms)[0]


def _chosen_again(
    own: Tensor, distance: Tensor, uncovered: Tensor, memory: _Rows, radius: float
) -> Tensor:
    """Return the rows that a memory needs once more when a picture and its rows are gone: (r, C).

    Args:
        own: patches (P, C) of the picture that is left out.
        distance: (P,), of these to the other pictures' rows.
        uncovered: patches (u, C) of other pictures whose nearest row was one of the picture's.
        memory: the other pictures' rows.
        radius: no patch may be farther from the memory.
    """
    n_highest = max(HIGHEST, COMPARED // (len(memory) + 1))
    highest = distance.topk(min(n_highest, len(distance))).indices
    # Only rows that would be nearer to one of the patches that matter.
    nearer = torch.cdist(own[highest], uncovered) < distance[highest, None]
    candidates = uncovered[nearer.any(dim=0)]
    to_rows = memory.nearest(candidates)[0]
    picks: list[int] = []
    while len(candidates) and float(to_rows.max()) > radius:
        picks.append(int(to_rows.argmax()))  # greedy, as the memory itself was chosen
        to_pick = (candidates - candidates[picks[-1]]).square().sum(dim=1).sqrt()
        to_rows = torch.minimum(to_rows, to_pick)
    return candidates[picks]


def _beyond(patches: Tensor, rows: Tensor, radius: float) -> Tensor:
    """Return those of the patches (u, C) that are farther than a radius from rows (r, C)."""
    if len(rows) == 0 or len(patches) == 0:
        return patches
    # Squared distances from products are inexact, and who is near the radius stays.
    nearest = squared_distances(patches, rows).amin(dim=1) + patches.square().sum(dim=1)
    return patches[nearest > 0.98 * radius**2]


def image_score(
    patches: Tensor,
    distance: Tensor,
    memory: Tensor,
    neighbours: int,
    norms: Tensor | None = None,
) -> Tensor:
    """Score each image by its farthest patch: s = w s* (PatchCore, eq. 6 and 7).

    Args:
        patches: (N, patches, channels).
        distance: (N, patches), of each patch to the nearest row of the memory.
        memory: (m, channels).
        neighbours: b of eq. 7, memory rows around the nearest one; 1: no re-weighting.
        norms: of the memory's rows, see `squared_distances`.

    Returns:
        Scores (N,).
    """
    score, farthest = distance.max(dim=1)  # s*, and where m_test* is
    neighbours = min(neighbours, memory.shape[0])
    if neighbours == 1:
        return score
    index = farthest[:, None, None].expand(-1, 1, patches.shape[2])
    patch = patches.gather(1, index)[:, 0]  # m_test*: (N, channels)
    nearest = memory[squared_distances(patch, memory, norms).argmin(dim=1)]  # m*
    around = squared_distances(nearest, memory, norms).topk(neighbours, largest=False).indices
    to_neighbours = (patch[:, None] - memory[around]).square().sum(dim=2).sqrt()
    # exp(s*) / sum exp(d), where an overflow of the sum is a share of 0, as it should be. Not a
    # log-sum-exp: not every runtime of the exported graph computes that one without overflow.
    inverse_share = (to_neighbours - score[:, None]).exp().sum(dim=1)
    return score - score / inverse_share


def _coreset_dtype(device: torch.device) -> torch.dtype:
    """A GPU picks in float16, in half the memory; a CPU has no arithmetic for it."""
    return torch.float16 if device.type == "cuda" else torch.float32
