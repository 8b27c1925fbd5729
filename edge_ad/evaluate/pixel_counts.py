"""Pixel metrics from counts: any number of anomaly maps in a few megabytes.

The bit pattern of a non-negative float32, read as a whole number, grows with the value. Its
leading bits are therefore a histogram bin of constant relative width, and sorting all pixels of
all pictures becomes a sum over the bins.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc

Counts = NDArray[np.float64]

_SHIFT = 12
"""Bits dropped from the 23 of the mantissa: a bin is 2**-11 (0.05 %) of its value wide."""

_N_BINS = 1 << (31 - _SHIFT)

PRO_LIMIT = 0.3
"""Highest false-positive rate that counts for PRO (Bergmann et al. 2020)."""


class PixelCounts:
    """Histograms of map values: of good pixels, of defective ones, and of defective regions."""

    def __init__(self) -> None:
        """Start without pixels."""
        self._good: Counts = np.zeros(_N_BINS)
        self._defective: Counts = np.zeros(_N_BINS)
        self._regions: Counts = np.zeros(_N_BINS)

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Count the pixels of one map (h, w), finite and >= 0, with its mask (h, w)."""
        # Adding 0 turns -0.0, whose sign bit is set, into 0.0.
        values = np.ascontiguousarray(anomaly_map, dtype=np.float32) + np.float32(0)
        bins = values.view(np.uint32) >> np.uint32(_SHIFT)
        _count(self._good, bins[~mask])
        if mask.any():
            _count(self._defective, bins[mask])
            _count(self._regions, bins[mask], _region_weights(mask))

    def auroc(self) -> float | None:
        """Return the area under the ROC curve of all pixels, 0..1; None without both kinds."""
        if not self._defined():
            return None
        false_rate, true_rate = _rates(self._good, self._defective)
        return _area(false_rate, true_rate)

    def pro(self) -> float | None:
        """Return the area under the per-region overlap, 0..1; None without both kinds of pixels.

        Each 8-connected region of each mask weighs the same. The overlap, averaged over the
        regions, is integrated over the false-positive rate from 0 to 0.3 and divided by 0.3
        (Bergmann et al. 2020, arXiv 1911.02357; 2021, doi:10.1007/s11263-020-01400-4).
        """
        if not self._defined():
            return None
        false_rate, overlap = _rates(self._good, self._regions)
        inside = false_rate <= PRO_LIMIT
        x = np.append(false_rate[inside], PRO_LIMIT)
        y = np.append(overlap[inside], np.interp(PRO_LIMIT, false_rate, overlap))
        return _area(x / PRO_LIMIT, y)

    def _defined(self) -> bool:
        return bool(self._good.any() and self._defective.any())


def _area(x: Counts, y: Counts) -> float:
    """Return the area under a curve within the unit square; rounding may take its sum beyond 1."""
    return min(float(auc(x, y)), 1.0)


def _count(counts: Counts, bins: NDArray[np.uint32], weights: Counts | None = None) -> None:
    added = np.bincount(bins, weights)
    counts[: len(added)] += added


def _region_weights(mask: NDArray[np.bool_]) -> Counts:
    """Return 1 / (area of its region) for each defective pixel, in the order of `mask`."""
    _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    ids = regions[mask]
    weights: Counts = 1.0 / np.bincount(ids)[ids]
    return weights


def _rates(false_counts: Counts, true_counts: Counts) -> tuple[Counts, Counts]:
    """Return both cumulative shares, 0..1, from the highest value down; pixels of a bin tie."""
    used = np.flatnonzero((false_counts > 0) | (true_counts > 0))[::-1]
    false_sums = np.concatenate([[0.0], np.cumsum(false_counts[used])])
    true_sums = np.concatenate([[0.0], np.cumsum(true_counts[used])])
    return false_sums / false_sums[-1], true_sums / true_sums[-1]
