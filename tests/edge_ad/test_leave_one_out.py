"""Leave-one-out scores against fits that really leave the picture out."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_ad.data import Dataset, load_category
from edge_ad.models import SPADE, Detector, PaDiM, PatchCore
from edge_ad.models import gaussian as gaussian_module
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad.models.memory_bank import GoodPatches, image_score, nearest_distance
from edge_ad_runtime.errors import DataError

POSITIONS, DIMS = 5, 40


def correlated_features(n: int) -> torch.Tensor:
    """Features whose variances span four decades, as those of a backbone: (positions, dims, n)."""
    generator = torch.Generator().manual_seed(n)
    scales = torch.logspace(-2, 1, DIMS)
    mixing: torch.Tensor = torch.linalg.qr(
        torch.randn(POSITIONS, DIMS, DIMS, generator=generator)
    ).Q
    samples = scales[:, None] * torch.randn(POSITIONS, DIMS, n, generator=generator)
    features: torch.Tensor = mixing @ samples + 3.0
    return features


def fit(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean_whitened, whitening and the left-out distances of features, in batches of 4."""
    with closing(GaussianStatistics()) as statistics:
        for batch in torch.split(features, 4, dim=2):
            statistics.add(batch)
        mean_whitened, whitening = statistics.whitening(0.1)
        return mean_whitened, whitening, statistics.left_out(mean_whitened, whitening, 0.1)


def refitted_distances(features: torch.Tensor) -> np.ndarray:
    """Distance of each sample to the Gaussians of the others, by n fits: (n, positions)."""
    n = features.shape[2]
    rows = []
    for left in range(n):
        others = features[:, :, [index for index in range(n) if index != left]]
        mean_whitened, whitening, _ = fit(others)
        whitened = whitening @ features[:, :, left : left + 1] - mean_whitened[:, :, None]
        rows.append(whitened.square().sum(dim=1).sqrt()[:, 0])
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("n", [20, 39, 41, 60, 150])
def test_padim_distances_equal_those_of_refits(n: int) -> None:
    features = correlated_features(n)
    ours = fit(features)[2].numpy()
    assert ours.shape == (n, POSITIONS)
    np.testing.assert_allclose(ours, refitted_distances(features), rtol=2e-3)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_padim_distances_are_near_those_of_refits_for_very_few_pictures(n: int) -> None:
    features = correlated_features(n)
    np.testing.assert_allclose(fit(features)[2].numpy(), refitted_distances(features), rtol=0.01)


def test_features_on_disk_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    features = correlated_features(50)
    in_memory = fit(features)[2]
    monkeypatch.setattr(gaussian_module, "KEPT_IN_MEMORY", 1000)
    assert torch.equal(fit(features)[2], in_memory)


def test_a_full_disk_is_one_clear_sentence() -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    with closing(GaussianStatistics()) as statistics, pytest.raises(DataError, match="set TMPDIR"):
        statistics._kept.close()
        statistics._kept = Full()  # type: ignore[assignment]
        statistics.add(correlated_features(4))


def small(method: type[Detector], **options: Any) -> Detector:
    """Return an unfitted detector for 64 x 96 pictures, with untrained weights."""
    return method(**{"weights": "none", "input_size": (64, 96), "device": "cpu"} | options)


def refitted_scores(method: type[Detector], good: Dataset, **options: Any) -> np.ndarray:
    """Score, lowest and highest map value of each picture by a fit of the others: (n, 3)."""
    rows = []
    for left in range(len(good)):
        others = Dataset([sample for index, sample in enumerate(good) if index != left])
        detector = small(method, **options).fit(others)
        ((_, prediction),) = detector.predictions(Dataset([good[left]]), "left out")
        anomaly_map = prediction.anomaly_map
        rows.append((prediction.score, anomaly_map.min(), anomaly_map.max()))
    return np.array(rows)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (PaDiM, {}),
        (PaDiM, {"dims": 30, "epsilon": 1e-4}),
        (SPADE, {"k": 5}),
        (SPADE, {"k": 5, "image_score": "retrieval"}),
        (SPADE, {"k": 50, "gallery_rule": "full"}),  # k is that of the pictures left
        (PatchCore, {"coreset": 1.0}),  # all rows: what a refit keeps is what is not masked
    ],
)
def test_good_scores_equal_those_of_refits(
    method: type[Detector], options: dict[str, Any], data_root: Path
) -> None:
    good = load_category("plate", data_root).train[:20]
    detector = small(method, **options).fit(good)
    assert detector.good is not None and detector.good.method == "loo"
    ours = np.stack([detector.good.scores, detector.good.map_minima, detector.good.map_maxima], 1)
    np.testing.assert_allclose(ours, refitted_scores(method, good, **options), rtol=2e-3)


def test_a_small_memory_is_cross_fitted_without_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(20, 60, 8, generator=generator)
    good = GoodPatches(25, 60, 8, 0.02, seed=0, device=torch.device("cpu"))
    good.add(patches[:12])
    good.add(patches[12:])
    bank = good.choose("memory")
    assert len(bank.rows) == 24
    for row, owner in zip(bank.rows, bank.owners, strict=True):
        assert (patches[owner] == row).all(dim=1).any()
    left_out = good.left_out(bank, 3, "memory")
    assert left_out.method == "cross-fit"
    # Rows of the picture itself would be at distance 0; all other distances are real ones.
    to_all = nearest_distance(patches, bank.rows)
    assert (to_all == 0).any() and not (left_out.distance == 0).any()


def test_own_rows_are_masked_in_search_and_reweighting() -> None:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(10, 30, 6, generator=generator)
    good = GoodPatches(10, 30, 6, 0.2, seed=0, device=torch.device("cpu"))
    good.add(patches)
    bank = good.choose("memory")
    left_out = good.left_out(bank, 4, "memory")
    assert left_out.method == "loo" and left_out.score is not None
    for picture in range(10):
        others = bank.rows[bank.owners != picture]
        distance = torch.cdist(patches[picture], others).amin(dim=1)
        np.testing.assert_allclose(left_out.distance[picture], distance, rtol=1e-4)
        score = image_score(patches[picture][None], distance[None], others, 4)
        np.testing.assert_allclose(left_out.score[picture], score[0], rtol=1e-4)


@pytest.mark.parametrize("method", [PaDiM, PatchCore, SPADE])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_few_pictures_give_scores_from_three_on(
    method: type[Detector], n: int, data_root: Path
) -> None:
    detector = small(method).fit(load_category("plate", data_root).train[:n])
    if n < 3:
        assert detector.good is None
    else:
        assert detector.good is not None and detector.good.scores.shape == (n,)
        assert detector.good.calibrate().n == n


def test_good_scores_follow_the_order_of_the_fit(data_root: Path) -> None:
    good = load_category("plate", data_root).train
    reversed_good = Dataset([*good][::-1])
    first, second = small(PaDiM).fit(good).good, small(PaDiM).fit(reversed_good).good
    assert first is not None and second is not None
    np.testing.assert_allclose(first.scores, second.scores[::-1], rtol=1e-3)
