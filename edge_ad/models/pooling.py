"""Covariances that borrow from the neighbouring positions, and how much they should borrow.

A covariance of 200 channels from 200 pictures is mostly noise, while that of the position beside
it is nearly the same. `(1 - share) own + share mean of the 3 x 3 positions` trades one error for
the other; only the fit changes, not the detector. The good pictures alone decide how
much to borrow: each is left out in turn, and the share is taken that makes them most likely.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from edge_ad.models.downdate import joint_root, without_own
from edge_ad.models.machine import thread_pool

SIDE, CENTRE = 3, 4
SHARES = (0.0, 0.25)
"""Likelihood would often take more, up to 1. What is gained lies below a quarter, though, and with
more, defects of parts that always lie in the same place are missed (benchmarks/accuracy.md)."""

PROBES = 5
"""Along each side of the grid: the positions at which the shares are compared."""

LEFT_OUT_AT_MOST = 64
"""Pictures that are left out in turn for that."""


def coefficients(grid: tuple[int, int], share: float) -> Tensor:
    """Return the weight of each of the nine positions around a position: (positions, 9), sum 1.

    Positions beyond the border have none; the others share theirs.
    """
    inside = functional.unfold(torch.ones(1, 1, *grid), SIDE, padding=1)[0].T
    weights = share * inside / inside.sum(dim=1, keepdim=True)
    weights[:, CENTRE] += 1 - share
    return weights


def around(samples: Tensor, row: int) -> Tensor:
    """Return what stands around the positions of a row: (width, n, 9, dims), zeros outside.

    Args:
        samples: (n, height, width, dims).
        row: of the grid.
    """
    n, height, width, dims = samples.shape
    rows = samples[:, max(row - 1, 0) : row + 2]
    missing = (int(row == 0), int(row == height - 1))
    padded = functional.pad(rows, (0, 0, 1, 1, *missing))
    windows = padded.unfold(2, SIDE, 1)  # (n, 3, width, dims, 3)
    return windows.permute(2, 0, 1, 4, 3).reshape(width, n, SIDE * SIDE, dims)


def pooled_rows(rows: Iterable[Tensor], grid: tuple[int, int], share: float) -> Iterator[Tensor]:
    """Blend scatter matrices with the mean of those around them, one row of the grid at a time.

    Args:
        rows: (width, dims, dims) each; three of them are held at a time.
        grid: (height, width).
        share: what the mean weighs, from 0 to 1.
    """
    columns = _in_reach(grid[1])

    def blend(above: Tensor | None, own: Tensor, below: Tensor | None) -> Tensor:
        column = own.clone()
        beside = [row for row in (above, below) if row is not None]
        for row in beside:
            column += row
        total = column.clone()
        total[1:] += column[:-1]
        total[:-1] += column[1:]
        count = columns.to(own) * (1 + len(beside))
        return own.lerp(total / count[:, None, None], share)

    above: Tensor | None = None
    own: Tensor | None = None
    for below in rows:
        if own is not None:
            yield blend(above, own, below)
        above, own = own, below
    if own is not None:
        yield blend(above, own, None)


def whitened_around(lines: Mapping[int, Tensor], row: int, factor: Tensor) -> Tensor:
    """Whiten what stands around the positions of a row: (width, N, 9, dims), zeros outside.

    Args:
        lines: rows of the grid by their number, the one at hand and those beside it, each with its
            centred samples (width, N, dims).
        row: the one at hand.
        factor: L^-1 (width, dims, dims) of its positions, B = L L^T.
    """
    width, n_samples, dims = lines[row].shape
    whitened = factor.new_zeros(width, n_samples, SIDE * SIDE, dims)
    for place, (down, across) in enumerate(product((-1, 0, 1), repeat=2)):
        if row + down in lines:
            here = slice(max(0, -across), width - max(0, across))
            there = slice(max(0, across), width - max(0, -across))
            whitened[here, :, place] = lines[row + down][there] @ factor[here].mT
    return whitened


def products_around(whitened: Tensor, weights: Tensor, root: Tensor) -> Tensor:
    """Return K = U^T B^-1 U of each picture, where U is what it adds to a blended scatter B.

    Args:
        whitened: (positions, N, 9, dims), L^-1 c with B = L L^T; copies stand beside each other.
        weights: (positions, 9), the `coefficients`.
        root: R (g, g), see `edge_ad.models.downdate`.

    Returns:
        (positions, N / g, 9 g, 9 g).
    """
    positions, _, _, dims = whitened.shape
    copies = whitened.reshape(positions, -1, len(root), SIDE * SIDE, dims).transpose(2, 3)
    columns = copies.flatten(2, 3)
    mixing = torch.kron(weights.sqrt().diag_embed(), root.to(weights))
    products: Tensor = columns @ columns.mT
    for _ in range(2):  # first P M^T, then (P M^T)^T M^T, which is M P M^T: all are symmetric
        products = (products.mT.flatten(1, 2) @ mixing.mT).reshape(products.shape)
    return products


def choose_share(samples: Tensor, epsilon: float, copies: int) -> float:
    """Return the share under which left-out pictures are most likely, on average over probes.

    Args:
        samples: (N, height, width, dims), features of 3 good pictures or more.
        epsilon: on the diagonal of each covariance.
        copies: samples of a picture, which stand beside each other and are left out together.
    """
    n_samples, height, width, _ = samples.shape
    n = n_samples // copies
    root = joint_root(copies, n_samples)
    rows, columns = _probes(height), _probes(width)
    weights = [coefficients((height, width), share).reshape(height, width, -1) for share in SHARES]

    left_out = torch.linspace(0, n - 1, min(n, LEFT_OUT_AT_MOST)).round().long()

    @torch.inference_mode()
    def likelihoods(row: int) -> Tensor:
        windows = around(samples, row)[columns].float()
        windows = (windows - windows.mean(dim=1, keepdim=True)).transpose(1, 2)
        scatters = (windows.mT @ windows).double()  # (probes, 9, dims, dims)
        pictures = windows.reshape(*windows.shape[:2], n, copies, -1)[:, :, left_out].flatten(2, 3)
        sums = [
            _log_likelihood(
                pictures.transpose(1, 2).double(),
                scatters,
                one[row, columns].to(scatters),
                root,
                divisor=n_samples - copies - 1,
                epsilon=epsilon,
            )
            for one in weights
        ]
        return torch.stack(sums)

    with thread_pool(samples.device) as pool:
        found = list(pool.map(likelihoods, rows) if pool else map(likelihoods, rows))
    return SHARES[int(torch.stack(found).sum(dim=0).argmax())]


def _log_likelihood(
    pictures: Tensor,
    scatters: Tensor,
    weights: Tensor,
    root: Tensor,
    *,
    divisor: int,
    epsilon: float,
) -> Tensor:
    """Sum the log-likelihoods of left-out pictures, up to a constant.

    Args:
        pictures: (probes, left out with their copies, 9, dims), centred.
        scatters: (probes, 9, dims, dims), of all samples.
        weights: (probes, 9), the `coefficients`.
        root: R (g, g), see `edge_ad.models.downdate`.
        divisor: of the scatter of the pictures that are not left out.
        epsilon: on the diagonal of each covariance.
    """
    probes, count, _, dims = pictures.shape
    scatter = (weights[:, :, None, None] * scatters).sum(dim=1)
    scatter.diagonal(dim1=1, dim2=2).add_(divisor * epsilon)
    cholesky = torch.linalg.cholesky(scatter)
    whitened = torch.linalg.solve_triangular(cholesky, pictures.flatten(1, 2).mT, upper=False)
    whitened = whitened.mT.reshape(probes, count, SIDE * SIDE, dims)
    squared, others = without_own(products_around(whitened, weights, root), root, CENTRE)
    squared = squared * divisor / weights[:, CENTRE, None]
    log_det = 2 * cholesky.diagonal(dim1=1, dim2=2).log().sum(dim=1, keepdim=True)
    likelihood: Tensor = -(squared + log_det + torch.linalg.slogdet(others).logabsdet).sum()
    return likelihood


def _probes(length: int) -> list[int]:
    """Return up to `PROBES` evenly spaced indices of an axis, away from its ends."""
    count = min(PROBES, length)
    return [int((index + 0.5) * length / count) for index in range(count)]


def _in_reach(length: int) -> Tensor:
    """Return how many of the three positions around each one lie on an axis: (length,)."""
    one = torch.ones(1, 1, length)
    return functional.avg_pool1d(one, SIDE, 1, 1)[0, 0] * SIDE
