"""Accuracy of a detector on a class, and what it would be on other draws of the test pictures."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from edge_ad.evaluate.pixel_counts import PRO_LIMIT, PixelCounts

BINS, REPLICATES = 400, 1000

Values = NDArray[np.float64]


class Maps(NamedTuple):
    """What a detector says about the test pictures of a class.

    Attributes:
        scores: (n,).
        maps: (n, h, w), float32.
    """

    scores: Values
    maps: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known about the test pictures of a class.

    Attributes:
        defective: (n,).
        masks: (n, h, w); None: the class has none.
    """

    defective: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None


def image_and_pixel(said: Maps, truth: Truth) -> Values:
    """Return image and pixel AUROC in percent; nan without masks."""
    found = [float(roc_auc_score(truth.defective, said.scores)), np.nan]
    if truth.masks is not None:
        found[1] = float(
            roc_auc_score(truth.masks[:, ::4, ::4].ravel(), said.maps[:, ::4, ::4].ravel())
        )
    return 100 * np.array(found)


def exact(said: Maps, truth: Truth) -> Values:
    """Return image AUROC, pixel AUROC and PRO in percent; nan without masks."""
    found = [float(roc_auc_score(truth.defective, said.scores)), np.nan, np.nan]
    if truth.masks is not None:
        counts = PixelCounts()
        for anomaly_map, mask in zip(said.maps, truth.masks, strict=True):
            counts.add(anomaly_map, mask)
        found[1:] = [counts.auroc() or np.nan, counts.pro() or np.nan]
    return 100 * np.array(found)


def resampled(defective: NDArray[np.bool_]) -> Values:
    """Return how often each test picture occurs in each replicate: (replicates, n)."""
    generator = np.random.default_rng(0)
    weights = np.zeros((REPLICATES, len(defective)))
    for kind in (True, False):
        chosen = np.flatnonzero(defective == kind)
        shares = np.full(len(chosen), 1 / len(chosen))
        weights[:, chosen] = generator.multinomial(len(chosen), shares, size=REPLICATES)
    return weights


def bootstrap(said: Maps, truth: Truth, weights: Values) -> Values:
    """Return the three figures of each replicate, in percent: (replicates, 3)."""
    good, defective = weights[:, ~truth.defective], weights[:, truth.defective]
    difference = said.scores[truth.defective][None] - said.scores[~truth.defective][:, None]
    won = (difference > 0) + 0.5 * (difference == 0)
    image = ((good @ won) * defective).sum(axis=1) / good.sum(axis=1) / defective.sum(axis=1)
    if truth.masks is None:
        return 100 * np.stack([image, np.full_like(image, np.nan), np.full_like(image, np.nan)], 1)
    pixels = [weights @ counts for counts in binned(said.maps, truth.masks)]
    false_rate, true_rate, overlap = (
        np.cumsum(one, axis=1) / one.sum(1)[:, None] for one in pixels
    )
    figures = [
        (area(x, y, 1.0), area(x, z, PRO_LIMIT))
        for x, y, z in zip(false_rate, true_rate, overlap, strict=True)
    ]
    return 100 * np.concatenate([image[:, None], figures], axis=1)


def binned(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> tuple[Values, Values, Values]:
    """Count, from the highest value down, good pixels, defective ones, and shares of regions.

    Returns:
        Three arrays (n, bins). The bins are finer where the values are high.
    """
    shares = np.concatenate([np.logspace(-5, -1, BINS // 2), np.linspace(0.1, 1, BINS // 2)[1:]])
    edges = np.unique(np.quantile(maps[:, ::3, ::3], 1 - shares))
    counts = np.zeros((3, len(maps), len(edges) + 1))
    for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        bins = len(edges) - np.searchsorted(edges, anomaly_map)
        counts[0, index] = np.bincount(bins[~mask], minlength=len(edges) + 1)
        counts[1, index] = np.bincount(bins[mask], minlength=len(edges) + 1)
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            ids = regions[mask]
            share = 1 / np.bincount(ids)[ids]
            counts[2, index] = np.bincount(bins[mask], share, minlength=len(edges) + 1)
    return counts[0], counts[1], counts[2]


def area(x: Values, y: Values, limit: float) -> float:
    """Integrate a curve from 0 to a limit, over the limit."""
    inside = x <= limit
    xs = np.concatenate([[0.0], x[inside], [limit]])
    ys = np.concatenate([[0.0], y[inside], [np.interp(limit, x, y)]])
    return float(np.trapezoid(ys, xs)) / limit


def intervals(differences: list[Values]) -> list[str]:
    """Average over the classes that have a figure, and take the interval over the replicates."""
    texts = []
    for values in np.moveaxis(np.array(differences), 2, 0):  # (classes, replicates)
        known = values[~np.isnan(values).any(axis=1)]
        if len(known) == 0:
            texts.append("-")
            continue
        mean = known.mean(axis=0)
        low, high = np.quantile(mean, [0.025, 0.975])
        texts.append(f"{mean.mean():+.2f} ({low:+.2f} to {high:+.2f})")
    return texts
