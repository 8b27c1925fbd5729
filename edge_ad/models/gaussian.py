"""One Gaussian per position, from one pass; and each picture's distance without its own share."""

import math
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edge_ad.models.downdate import joint_root, products_of_copies, without_own
from edge_ad.models.leave_one_out import FEWEST
from edge_ad.models.machine import thread_pool
from edge_ad.models.pooling import (
    CENTRE,
    SHARES,
    choose_share,
    coefficients,
    pooled_rows,
    products_around,
    whitened_around,
)
from edge_ad_runtime.errors import DataError

KEPT_IN_MEMORY = 2**29
"""Bytes of features that wait in memory for `left_out`; beyond it they lie on disk."""

SAMPLES_AT_ONCE = 32  # all copies of a picture are read at once
POSITIONS_AT_ONCE = 64
HALF_MAX = 65504.0


class GaussianStatistics:
    """Mean and covariance per position in one pass, whatever the number of samples.

    Values are taken relative to the mean of the first batch, so that float32 sums do not cancel.
    Relative to it they are also kept in float16 until `close`, for `left_out`.

    Attributes:
        pooling: share of the neighbours' mean in each covariance, set by `pool`.
    """

    def __init__(self, copies: int = 1) -> None:
        """Start empty; the shapes come with the first batch.

        Args:
            copies: samples of a picture, which stand beside each other and are left out together.
                The first one is the picture as it is; 1, 2 or 4.
        """
        self._copies = copies
        self._kept = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)
        self._count = 0
        self._shift = torch.empty(0)
        self._sum = torch.empty(0)
        self._outer = torch.empty(0)
        self._grid = (0, 0)
        self.pooling = 0.0

    def close(self) -> None:
        """Forget the features."""
        self._kept.close()

    def add(self, features: Tensor) -> None:
        """Add features (positions, dims, n).

        Raises:
            DataError: the disk is too full for what does not stay in memory.
        """
        if self._count == 0:
            positions, dims, _ = features.shape
            self._shift = features.mean(dim=2, keepdim=True)
            self._sum = torch.zeros_like(self._shift)
            self._outer = features.new_zeros(positions, dims, dims)
        centred = features - self._shift
        self._sum += centred.sum(dim=2, keepdim=True)
        self._outer.baddbmm_(centred, centred.transpose(1, 2))
        self._count += features.shape[2]
        self._keep(centred)

    def pool(self, grid: tuple[int, int], share: float | None, epsilon: float) -> float:
        """Blend each covariance with the mean of those of the 3 x 3 positions around it.

        Args:
            grid: height and width of the grid of positions.
            share: what the mean weighs, from 0 to 1; None: what the features tell.
            epsilon: on the diagonal of each covariance.

        Returns:
            The share.
        """
        self._grid = grid
        if share is None:
            if self._count // self._copies < FEWEST:
                share = SHARES[-1]
            else:
                share = choose_share(self._kept_on(grid), epsilon, self._copies)
        self.pooling = share
        return share

    def whitening(self, epsilon: float) -> tuple[Tensor, Tensor]:
        """Finish: return L^-1 mean (positions, dims) and L^-1 (positions, dims, dims), cov = L L^T.

        The covariance is that of the paper's eq. 1: divided by n - 1, epsilon on the diagonal;
        blended with those around it after `pool`.

        Raises:
            DataError: fewer than two samples.
        """
        if self._count < 2:
            raise DataError(
                f"expected at least 2 pictures to estimate a covariance, got {self._count}: "
                "add pictures of good parts"
            )
        means = torch.empty_like(self._sum[:, :, 0])
        factors = self._outer  # overwritten piece by piece: gigabytes for a large backbone
        self._centre_and_blend()

        @torch.inference_mode()
        def whiten(chunk: Tensor) -> None:
            factors[chunk], means[chunk] = self._whiten(chunk, epsilon)

        chunks = torch.split(torch.arange(len(factors)), POSITIONS_AT_ONCE)
        with thread_pool(factors.device) as pool:
            for _ in pool.map(whiten, chunks) if pool else map(whiten, chunks):
                pass
        self._outer = torch.empty(0)
        return means, factors

    def left_out(self, mean_whitened: Tensor, whitening: Tensor, epsilon: float) -> Tensor:
        """Return each picture's distance to the Gaussians of all others: (n, positions).

        Args:
            mean_whitened: (positions, dims), as `whitening` returned it.
            whitening: (positions, dims, dims), likewise.
            epsilon: on the diagonal of each covariance.
        """
        if self.pooling > 0:
            return self._left_out_of_pooled(epsilon)
        if self._count - self._copies < self._shift.shape[1]:
            return self._left_out_of_few(epsilon)
        return self._left_out_of_many(mean_whitened, whitening, epsilon)

    def _left_out_of_many(self, mean_whitened: Tensor, whitening: Tensor, epsilon: float) -> Tensor:
        """Correct the distances to the Gaussians of all pictures; for more samples than dims.

        A refit weighs epsilon with N - g - 1, the factors at hand with N - 1: C^T B^-1 C takes the
        first step of its series in epsilon.
        """
        n, copies = self._count, self._copies
        offset = mean_whitened[:, None] - (whitening @ self._shift).mT
        distances = []
        for features in self._kept_features():
            whitened = torch.baddbmm(offset, features, whitening.mT, beta=-1)
            solved = whitened @ whitening
            own = products_of_copies(whitened, copies) / (n - 1)
            own += products_of_copies(solved, copies) * (copies * epsilon / (n - 1) ** 2)
            distances.append(self._without_own(own).T)
        return torch.cat(distances)

    def _left_out_of_few(self, epsilon: float) -> Tensor:
        """Do the same in the space of the samples, exactly; for up to as many samples as dims.

        There the correction divides by small numbers, which would amplify the rounding of the
        kept features. With C (dims, N) all centred samples and l = (N - g - 1) epsilon, which is
        what a refit weighs it with, C^T (C C^T + l)^-1 C is 1 - l (C^T C + l)^-1.
        """
        copies = self._copies
        kept = torch.cat(list(self._kept_features()), dim=1)
        weight = self._divisor * epsilon

        @torch.inference_mode()
        def left_out(chunk: Tensor) -> Tensor:
            centred = chunk.double()
            centred -= centred.mean(dim=1, keepdim=True)
            products = centred @ centred.mT
            products.diagonal(dim1=1, dim2=2).add_(weight)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(products))
            by_picture = inverse.reshape(len(chunk), *(len(inverse[0]) // copies, copies) * 2)
            own = -weight * by_picture.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
            own.diagonal(dim1=2, dim2=3).add_(1)
            return self._without_own(own)

        chunks = torch.split(kept, POSITIONS_AT_ONCE)
        with thread_pool(kept.device) as pool:
            distances = list(pool.map(left_out, chunks) if pool else map(left_out, chunks))
        return torch.cat(distances).T

    def _left_out_of_pooled(self, epsilon: float) -> Tensor:
        """Do the same, exactly, where a picture also counts in the covariances around a position.

        The blended scatter is that of the kept features, so that rounding them cannot matter where
        there are so few pictures that each of them is most of its own covariance.
        """
        n, samples, device = self._count, self._kept_on(self._grid), self._shift.device
        dtype = torch.float64 if n <= samples.shape[3] else torch.float32
        weights = coefficients(self._grid, self.pooling).to(device, dtype)
        root = joint_root(self._copies, n)

        lines: dict[int, Tensor] = {}  # the rows around the one at hand, centred

        def scatters() -> Iterator[Tensor]:
            for row in range(self._grid[0]):
                own = samples[:, row].transpose(0, 1).to(device, dtype)  # (width, N, dims)
                lines[row] = own - own.mean(dim=1, keepdim=True)
                lines.pop(row - 3, None)
                yield (lines[row].mT @ lines[row]).double()

        distances = []
        width = self._grid[1]
        for row, scatter in enumerate(pooled_rows(scatters(), self._grid, self.pooling)):
            scatter.diagonal(dim1=1, dim2=2).add_(self._divisor * epsilon)
            whitened = whitened_around(lines, row, _inverse_factor(scatter).to(dtype))
            of_row = weights[row * width : (row + 1) * width]
            squared, _ = without_own(products_around(whitened, of_row, root), root, CENTRE)
            distances.append((squared / of_row[:, CENTRE, None]).float())
        return (torch.cat(distances) * self._divisor).sqrt().T

    @property
    def _divisor(self) -> int:
        """What the scatter without a picture and its copies is divided by."""
        return max(self._count - self._copies - 1, 1)

    def _without_own(self, own: Tensor) -> Tensor:
        """Turn C^T B^-1 C of pictures and their copies (..., g, g) into left-out distances."""
        root = joint_root(self._copies, self._count)
        mixed = root.to(own)
        squared, _ = without_own(mixed @ own @ mixed, root)
        return (squared * self._divisor).sqrt().float()

    def _keep(self, centred: Tensor) -> None:
        """Append centred features (positions, dims, n), sample by sample."""
        samples = centred.permute(2, 0, 1).clamp(-HALF_MAX, HALF_MAX).half().contiguous()
        try:
            self._kept.write(samples.cpu().numpy().data)
        except OSError as error:
            raise DataError(
                f"cannot keep the features of the fit in {tempfile.gettempdir()} "
                f"({error.strerror}): free some space, or set TMPDIR to another folder"
            ) from error

    def _kept_features(self) -> Iterator[Tensor]:
        """Yield the features again, centred: (positions, n, dims) with n up to 32."""
        positions, dims, _ = self._shift.shape
        self._kept.seek(0)
        while block := self._kept.read(SAMPLES_AT_ONCE * positions * dims * 2):
            samples = torch.from_numpy(np.frombuffer(bytearray(block), np.float16))
            features = samples.reshape(-1, positions, dims).to(self._shift.device)
            yield features.transpose(0, 1).float()

    def _kept_on(self, grid: tuple[int, int]) -> Tensor:
        """Return the kept features, where they lie: (n, height, width, dims), float16."""
        shape = (self._count, *grid, self._shift.shape[1])
        self._kept.seek(0)
        if 2 * math.prod(shape) > KEPT_IN_MEMORY:
            self._kept.flush()
            return torch.from_numpy(np.memmap(self._kept, np.float16, "r+", shape=shape))
        return torch.from_numpy(
            np.frombuffer(bytearray(self._kept.read()), np.float16).reshape(shape)
        )

    def _centre_and_blend(self) -> None:
        """Turn outer products into blended scatter matrices, in place; nothing without pooling."""
        if self.pooling == 0:
            return
        width = self._grid[1]
        chunks = [slice(start, start + width) for start in range(0, len(self._outer), width)]
        rows = (self._scatter(chunk).float() for chunk in chunks)
        for chunk, blended in zip(chunks, pooled_rows(rows, self._grid, self.pooling), strict=True):
            self._outer[chunk] = blended

    def _scatter(self, positions: Tensor | slice) -> Tensor:
        """Return the scatter of some positions around their means: (p, dims, dims), float64."""
        total = self._sum[positions].double()
        return self._outer[positions].double() - total @ total.mT / self._count

    def _whiten(self, chunk: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Float64 for a few positions at a time: the factor (p, d, d) and its mean (p, d)."""
        covariance = self._outer[chunk].double() if self.pooling else self._scatter(chunk)
        covariance /= self._count - 1
        covariance.diagonal(dim1=1, dim2=2).add_(epsilon)
        factor = _inverse_factor(covariance)
        mean = self._shift[chunk].double() + self._sum[chunk].double() / self._count
        return factor.float(), (factor @ mean)[:, :, 0].float()


def _inverse_factor(matrices: Tensor) -> Tensor:
    """Return L^-1 of matrices L L^T (p, dims, dims), float64."""
    cholesky = torch.linalg.cholesky(matrices)
    identity = torch.eye(matrices.shape[1]).to(matrices).expand_as(cholesky)
    factors: Tensor = torch.linalg.solve_triangular(cholesky, identity, upper=False)
    return factors
