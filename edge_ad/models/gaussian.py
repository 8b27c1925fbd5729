"""One Gaussian per position, from one pass; and each sample's distance without its own share."""

import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from edge_ad.models.machine import thread_pool
from edge_ad_runtime.errors import DataError

KEPT_IN_MEMORY = 2**29
"""Bytes of features that wait in memory for `left_out`; beyond it they lie on disk."""

SAMPLES_AT_ONCE = 32
POSITIONS_AT_ONCE = 64
SMALLEST_SHARE = 1e-6
"""Of a sample's covariance that is not its own; the smallest that was seen is 0.004."""

HALF_MAX = 65504.0


class GaussianStatistics:
    """Mean and covariance per position in one pass, whatever the number of samples.

    Values are taken relative to the mean of the first batch, so that float32 sums do not cancel.
    Relative to it they are also kept in float16 until `close`, for `left_out`.
    """

    def __init__(self) -> None:
        """Start empty; the shapes come with the first batch."""
        self._kept = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)
        self._count = 0
        self._shift = torch.empty(0)
        self._sum = torch.empty(0)
        self._outer = torch.empty(0)

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

    def whitening(self, epsilon: float) -> tuple[Tensor, Tensor]:
        """Finish: return L^-1 mean (positions, dims) and L^-1 (positions, dims, dims), cov = L L^T.

        The covariance is that of the paper's eq. 1: divided by n - 1, epsilon on the diagonal.

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
        """Return each sample's distance to the Gaussians of all others: (n, positions).

        Args:
            mean_whitened: (positions, dims), as `whitening` returned it.
            whitening: (positions, dims, dims), likewise.
            epsilon: on the diagonal of each covariance.
        """
        if self._count <= self._shift.shape[1]:
            return self._left_out_of_few(epsilon)
        return self._left_out_of_many(mean_whitened, whitening, epsilon)

    def _left_out_of_many(self, mean_whitened: Tensor, whitening: Tensor, epsilon: float) -> Tensor:
        """Correct the distances to the Gaussians of all samples; for more samples than dims.

        Without sample i the mean moves away from it by a factor n/(n-1) and the scatter matrix S
        loses n/(n-1) c c^T, so that by Sherman and Morrison (1950), with q = c^T (S + l)^-1 c,
        D_i = (n/(n-1))^2 (n-2) q / (1 - n/(n-1) q). A refit weighs epsilon with l = (n-2) epsilon,
        the factors at hand with (n-1) epsilon: q takes the first step of its series in epsilon.
        """
        n = self._count
        offset = mean_whitened[:, :, None] - whitening @ self._shift
        distances = []
        for features in self._kept_features():
            whitened = torch.baddbmm(offset, whitening, features, beta=-1)
            solved = whitening.transpose(1, 2) @ whitened
            share = whitened.square_().sum(dim=1) / (n - 1)
            share += solved.square_().sum(dim=1) * (epsilon / (n - 1) ** 2)
            distances.append(_without_own(share, n).T)
        return torch.cat(distances)

    def _left_out_of_few(self, epsilon: float) -> Tensor:
        """Do the same in the space of the samples, exactly; for up to as many samples as dims.

        There the correction divides by small numbers, which would amplify the rounding of the
        kept features. With C (dims, n) the centred samples and l = (n-2) epsilon, which is what a
        refit weighs it with, q_i = c_i^T (C C^T + l)^-1 c_i is 1 - l [(C^T C + l)^-1]_ii.
        """
        n = self._count
        kept = torch.cat(list(self._kept_features()), dim=2)
        weight = max(n - 2, 1) * epsilon

        @torch.inference_mode()
        def left_out(chunk: Tensor) -> Tensor:
            centred = chunk.double()
            centred -= centred.mean(dim=2, keepdim=True)
            products = centred.transpose(1, 2) @ centred
            products.diagonal(dim1=1, dim2=2).add_(weight)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(products))
            share = 1 - weight * inverse.diagonal(dim1=1, dim2=2)
            return _without_own(share, n).float()

        chunks = torch.split(kept, POSITIONS_AT_ONCE)
        with thread_pool(kept.device) as pool:
            distances = list(pool.map(left_out, chunks) if pool else map(left_out, chunks))
        return torch.cat(distances).T

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
        """Yield the features again, centred: (positions, dims, n) with n up to 32."""
        positions, dims, _ = self._shift.shape
        self._kept.seek(0)
        while block := self._kept.read(SAMPLES_AT_ONCE * positions * dims * 2):
            samples = torch.from_numpy(np.frombuffer(bytearray(block), np.float16))
            features = samples.reshape(-1, positions, dims).to(self._shift.device)
            yield features.permute(1, 2, 0).float()

    def _whiten(self, chunk: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """Float64 for a few positions at a time: the factor (p, d, d) and its mean (p, d)."""
        total = self._sum[chunk].double()
        covariance = self._outer[chunk].double() - total @ total.transpose(1, 2) / self._count
        covariance /= self._count - 1
        covariance.diagonal(dim1=1, dim2=2).add_(epsilon)
        cholesky = torch.linalg.cholesky(covariance)
        identity = torch.eye(covariance.shape[1], dtype=torch.float64, device=covariance.device)
        factor = torch.linalg.solve_triangular(cholesky, identity.expand_as(cholesky), upper=False)
        mean = self._shift[chunk].double() + total / self._count
        return factor.float(), (factor @ mean)[:, :, 0].float()


def _without_own(share: Tensor, n: int) -> Tensor:
    """Turn q, the share of a sample in its own squared distance, into its left-out distance."""
    others_share = (1 - share * (n / (n - 1))).clamp(min=SMALLEST_SHARE)
    return (share.clamp(min=0) * max(n - 2, 1) / others_share).sqrt() * (n / (n - 1))
