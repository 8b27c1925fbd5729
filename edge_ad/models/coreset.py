"""Greedy k-centre coreset: the few rows that lie within the smallest radius of all others.

Sener & Savarese, 2018, https://arxiv.org/abs/1708.00489, algorithm 1, as PatchCore uses it
(https://arxiv.org/abs/2106.08265, algorithm 1): pick the row farthest from all picks so far, again
and again. The picks are those of the plain loop

    nearest = minimum(nearest, (features - features[pick]).square().sum(1)); pick = nearest.argmax()

in fp32, on a CPU bit by bit (a GPU may add up a row in another order), but the features are read
once for many picks instead of once for each:

1. All rows with `nearest` above a limit t are the candidates, a few hundred. A pick only lowers
   distances, so while the best candidate is above t no other row can win: the greedy continues
   among the candidates alone.
2. The picks of such a batch are brought to all rows with one matrix product a block,
   |x|^2 + |c|^2 - 2 x.c. Its rounding error has a bound, so it decides where a distance may
   have fallen; only there is it computed by subtraction, as the plain loop does.
"""

import logging
import math
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim
from torch import Tensor

from edge_ad.models.machine import full_precision, thread_pool
from edge_ad.progress import Bar
from edge_ad_runtime.errors import EdgeAdError

logger = logging.getLogger(__name__)

MAX_BATCH = 256  # picks that share one pass over the features
MIN_CANDIDATES, MAX_CANDIDATES = 256, 2048
PAIRS_AT_ONCE = 4096
SYNC_EVERY = 16  # picks between two looks at the device's values: a look stalls a GPU
PICKED = -1.0  # below every distance: a row is picked once, among duplicates too
UNIT_ROUNDOFF = 2.0**-24
TINY = 1e-36  # absolute slack where squares underflow
LARGEST_NORM = 1e36  # squared; beyond it distances may overflow fp32
WORKSPACE = 2**26  # bytes that the matrix library and the allocator keep, as measured


def projected_width(n: int, width: int, *, eps: float = 0.9) -> int:
    """Return the dimensions that `project` keeps of `width`, for n rows."""
    components = int(johnson_lindenstrauss_min_dim(n, eps=eps))
    return components if 0 < components < width else width


def project(
    features: Tensor, *, eps: float = 0.9, seed: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Project features to the Johnson-Lindenstrauss dimension, where that is smaller.

    scikit-learn's SparseRandomProjection keeps all pairwise distances within 1 +- eps. In fp16 the
    features are also scaled by a power of two that uses the range and cannot overflow; the greedy
    picks do not depend on scale.

    Args:
        features: (N, D), floating, on any device.
        eps: distortion allowed, in (0, 1); smaller keeps more dimensions.
        seed: draws the projection.
        dtype: of the result, float32 or float16.

    Returns:
        (N, d) with d <= D; `features` itself if nothing had to change.
    """
    n, width = features.shape
    components = projected_width(n, width, eps=eps)
    if components < width:
        sparse = SparseRandomProjection(components, random_state=seed)
        sparse.fit(np.zeros((1, width), np.float32))
        matrix = torch.from_numpy(sparse.components_.toarray().T).to(features.device, torch.float32)
        return _cast(features, matrix, dtype)
    logger.info(
        "no random projection: %d rows keep their %d dimensions, the bound asks for more", n, width
    )
    return features if features.dtype == dtype else _cast(features, None, dtype)


class Coreset(NamedTuple):
    """Picked rows, and which of them each row is nearest to; all on the device of the features.

    Attributes:
        picks: int64 (count,), in their order.
        nearest: int64 (N,), which of the picks; of equally near ones, any.
        distance: float32 (N,), to that pick; 0 for the picks.
    """

    picks: Tensor
    nearest: Tensor
    distance: Tensor


def greedy_coreset(
    features: Tensor, count: int, *, seed: int = 0, description: str | None = None
) -> Coreset:
    """Pick rows by greedy k-centre; exact, deterministic, ties go to the lowest index.

    Args:
        features: (N, d), float32 or float16, on the device that does the work; fp16 rows are
            widened block by block, distances are fp32 always.
        count: rows to pick, 1 to N.
        seed: draws the first pick.
        description: text of a progress bar on a terminal's stderr; None: no bar.

    Raises:
        EdgeAdError: count is out of range, or features are not finite or too large for fp32.
    """
    n = len(features)
    if not 1 <= count <= n:
        raise EdgeAdError(f"expected a coreset of 1 to {n} rows, all that there are, got {count}")
    first = torch.randint(n, (1,), generator=torch.Generator().manual_seed(seed))
    new = first.to(features.device)
    with (
        torch.inference_mode(),
        full_precision(),  # the error bound is that of float32
        thread_pool(features.device) as pool,
        Bar(count, description) as bar,
    ):
        coverage = _Coverage(features, pool)
        picks = [new]
        left = count - 1
        width = MIN_CANDIDATES
        bar.update(1)
        while left:
            coverage.add(new)
            new = coverage.farthest(width, left)
            width = _next_width(width, len(new))
            picks.append(new)
            left -= len(new)
            bar.update(len(new))
        coverage.add(new)
        chosen, distance = torch.cat(picks), coverage.squared.clamp(min=0).sqrt()
    # Made outside inference mode: tensors like any other.
    return Coreset(chosen.clone(), coverage.nearest.long(), distance.clone())


def coreset_memory_bytes(n: int, d: int, dtype: torch.dtype) -> int:
    """Estimate the peak bytes of `greedy_coreset` for features (n, d), the features included."""
    per_row = d * dtype.itemsize + 5 * 4  # norms, distances, picks, and copies for the selection
    on_cpu = _block_rows(torch.device("cpu")) * torch.get_num_threads()
    block = max(on_cpu, _block_rows(torch.device("cuda"))) * (d + 2 * MAX_BATCH) * 4
    candidates = (2 * MAX_CANDIDATES + 3 * PAIRS_AT_ONCE) * d * 4
    return n * per_row + block + candidates + WORKSPACE


class _Coverage:
    """How far each row is from its nearest pick.

    Attributes:
        squared: float32 (N,), squared distances; PICKED for picks.
        nearest: int32 (N,), the number of the nearest pick.
    """

    def __init__(self, features: Tensor, pool: Executor | None) -> None:
        self.features = features
        self.pool = pool
        self.rows = _block_rows(features.device)
        self.norms = torch.cat(
            [b.float().square().sum(1) for b in torch.split(features, self.rows)]
        )
        if not bool(self.norms.max() < LARGEST_NORM):  # False for nan too
            raise EdgeAdError(
                f"expected finite features of a squared norm below {LARGEST_NORM:g}, the largest "
                f"is {float(self.norms.max()):g}: check the pictures and the backbone's weights"
            )
        self.squared = torch.full_like(self.norms, math.inf)
        self.nearest = torch.zeros_like(self.norms, dtype=torch.int32)
        self._count = 0
        # |fl(|x|^2 + |c|^2 - 2 x.c) - fl(sum (x - c)^2)| <= relative_error (|x|^2 + |c|^2), for
        # any order of summation: Higham, Accuracy and Stability, 2002, section 3.1, gamma_n.
        self.relative_error = 4 * (features.shape[1] + 16) * UNIT_ROUNDOFF

    def add(self, picks: Tensor) -> None:
        """Lower the distances of all rows by the new picks (k,)."""
        centres = self.features[picks].float()
        norms = self.norms[picks]
        bring = partial(self._add_to_block, centres, centres.t().contiguous(), norms)
        starts = range(0, len(self.features), self.rows)
        for _ in self.pool.map(bring, starts) if self.pool else map(bring, starts):
            pass
        self.squared[picks] = PICKED
        numbers = torch.arange(self._count, self._count + len(picks), dtype=torch.int32)
        self.nearest[picks] = numbers.to(picks.device)
        self._count += len(picks)

    @torch.inference_mode()  # a pool's threads are not in the caller's mode
    def _add_to_block(self, centres: Tensor, columns: Tensor, norms: Tensor, start: int) -> None:
        part = slice(start, start + self.rows)
        block = self.features[part].float()
        # Without |x|^2, which is the same for all picks.
        product = torch.addmm(norms, block, columns, alpha=-2)
        error = self.relative_error * (self.norms[part] + norms.max()) + TINY
        self._lower(part, block, centres, self._candidates(product, part, error))

    def _candidates(self, product: Tensor, part: slice, error: Tensor) -> tuple[Tensor, Tensor]:
        """Find the (row, pick) pairs of a block that may hold the row's new distance."""
        best = product.amin(1)
        limit = self.squared[part] - self.norms[part] + error
        rows = (best < limit).nonzero()[:, 0]
        within = torch.minimum(limit, best + 2 * error)[rows, None]
        pairs = (product[rows] <= within).nonzero()
        return rows[pairs[:, 0]], pairs[:, 1]

    def _lower(
        self, part: slice, block: Tensor, centres: Tensor, pairs: tuple[Tensor, Tensor]
    ) -> None:
        rows, columns = pairs
        squared, nearest = self.squared[part], self.nearest[part]
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            row = rows[start : start + PAIRS_AT_ONCE]
            column = columns[start : start + PAIRS_AT_ONCE]
            distance = (block[row] - centres[column]).square_().sum(1)
            squared.scatter_reduce_(0, row, distance, "amin")
            nearer = distance == squared[row]
            nearest[row[nearer]] = (self._count + column[nearer]).to(torch.int32)

    def farthest(self, width: int, most: int) -> Tensor:
        """Return the next picks, one or more and up to `most`, found among `width` candidates."""
        top = self.squared.topk(min(width, len(self.squared)), sorted=False).values
        highest = top.max()
        if not bool(highest > 0):  # only duplicates of picks are left
            return (self.squared >= 0).nonzero()[:most, 0]
        # Where more than `width` rows share the highest value, the first of them are candidates:
        # a tie goes to the lowest index.
        limit = torch.minimum(top.min(), torch.nextafter(highest, highest.new_zeros(())))
        candidates = (self.squared > limit).nonzero()[:width, 0]
        rows = self.features[candidates].float()
        picks = _greedy_above(rows, self.squared[candidates], limit, min(most, MAX_BATCH))
        return candidates[picks]


def _greedy_above(rows: Tensor, nearest: Tensor, limit: Tensor, most: int) -> Tensor:
    """Pick among rows (n, d) while the farthest is above `limit`: int64 (k,), k <= most."""
    most = min(most, len(rows))
    values = nearest.new_empty(most)
    picks = torch.empty(most, dtype=torch.long, device=rows.device)
    difference = torch.empty_like(rows)
    distance = torch.empty_like(nearest)
    for i in range(most):
        pick = picks[i]
        torch.max(nearest, 0, out=(values[i], pick))
        if i % SYNC_EVERY == 0 and not bool(values[i] > limit):
            break
        torch.sub(rows, rows[picks[i : i + 1]], out=difference)
        torch.sum(difference.square_(), 1, out=distance)
        torch.minimum(nearest, distance, out=nearest)
        nearest.index_fill_(0, picks[i : i + 1], PICKED)
    # Highest values only fall, so those above the limit come first.
    return picks[: int((values[: i + 1] > limit).sum())]


def _next_width(width: int, found: int) -> int:
    """Take more candidates while they end the batches early, fewer when they never do."""
    if found < MAX_BATCH // 2:
        return min(2 * width, MAX_CANDIDATES)
    return max(width // 2, MIN_CANDIDATES) if found == MAX_BATCH else width


def _block_rows(device: torch.device) -> int:
    """Rows a matrix product: the products stay in the cache of a CPU, and fill a GPU."""
    return 4096 if device.type == "cpu" else 16384


def _cast(features: Tensor, matrix: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Multiply features (N, D) with a matrix (D, d), block by block, into a tensor of `dtype`."""
    width = features.shape[1] if matrix is None else matrix.shape[1]
    result = torch.empty(len(features), width, dtype=dtype, device=features.device)
    scale = _half_scale(features, matrix) if dtype == torch.float16 else 1.0
    rows = _block_rows(features.device)
    for source, target in zip(torch.split(features, rows), torch.split(result, rows), strict=True):
        block = source.float() if matrix is None else source.float() @ matrix
        target.copy_(block * scale)
    return result


def _half_scale(features: Tensor, matrix: Tensor | None) -> float:
    """Find the power of two that brings the projected features below fp16's 65,504."""
    rows = _block_rows(features.device)
    largest = max(float(b.float().norm(dim=1).max()) for b in torch.split(features, rows))
    if matrix is not None:  # |x.w| <= |x| |w|
        largest *= float(matrix.norm(dim=0).max())
    return 2.0 ** (15 - math.frexp(largest)[1]) if 0 < largest < math.inf else 1.0
