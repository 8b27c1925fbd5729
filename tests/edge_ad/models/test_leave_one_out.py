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
from edge_ad.models import memory_bank as memory_bank_module
from edge_ad.models.gaussian import GaussianStatistics
from edge_ad.models.memory_bank import GoodPatches, MemoryBank, image_score, nearest_distance
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
        (PaDiM, {"pooling": 0.0}),
        (PaDiM, {"dims": 30, "epsilon": 1e-4, "pooling": 0.5}),
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
    assert detector.good is not None
    ours = np.stack([detector.good.scores, detector.good.map_minima, detector.good.map_maxima], 1)
    np.testing.assert_allclose(ours, refitted_scores(method, good, **options), rtol=2e-3)


def textured_patches(n: int) -> torch.Tensor:
    """Patches (n, 80, 12) of pictures; two of each are odd, as are those of a few others."""
    generator = torch.Generator().manual_seed(0)
    usual = 3 * torch.randn(25, 12, generator=generator)
    odd = 10 * torch.randn(8, 12, generator=generator)
    patches = usual[torch.randint(25, (n, 80), generator=generator)]
    patches[:, :2] = odd[torch.randint(8, (n, 2), generator=generator)]
    return patches + torch.randn(n, 80, 12, generator=generator)


def chosen(patches: torch.Tensor, coreset: float | int) -> tuple[GoodPatches, MemoryBank]:
    n, n_patches, channels = patches.shape
    good = GoodPatches(n, n_patches, channels, coreset, seed=0, device=patches.device)
    good.add(patches)
    return good, good.choose("memory")


@pytest.mark.parametrize("coreset", [0.1, 0.02])
def test_a_memory_scores_left_out_pictures_as_refits_do(coreset: float) -> None:
    patches = textured_patches(25)
    good, bank = chosen(patches, coreset)
    left_out = good.left_out(bank, 3, "memory")
    assert left_out.score is not None
    refitted: list[float] = []
    masked: list[float] = []
    for picture, own in enumerate(patches):
        rest = torch.cat([patches[:picture], patches[picture + 1 :]])
        for rows, scores in (
            (chosen(rest, coreset)[1].rows, refitted),
            (bank.rows[bank.owners != picture], masked),
        ):
            distance = nearest_distance(own, rows)[None]
            scores.append(float(image_score(own[None], distance, rows, 3)))
    assert np.mean(masked) > 1.2 * np.mean(refitted)  # what it is better than
    assert float(left_out.score.mean()) == pytest.approx(np.mean(refitted), rel=0.05)


def test_other_pictures_get_rows_of_their_own_without_a_pictures_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_bank_module, "HIGHEST", 80)  # all patches
    patches = textured_patches(12)
    good, bank = chosen(patches, 0.1)
    radius = torch.cdist(patches.flatten(0, 1), bank.rows).amin(dim=1).max()
    left_out = good.left_out(bank, 4, "memory")
    assert left_out.score is not None
    for picture, own in enumerate(patches):
        rows = bank.rows[bank.owners != picture]
        rest = torch.cat([patches[:picture], patches[picture + 1 :]]).flatten(0, 1)
        while (far := torch.cdist(rest, rows).amin(dim=1)).max() > radius + 1e-4:
            rows = torch.cat([rows, rest[far.argmax()][None]])
        distance = nearest_distance(own, rows)
        np.testing.assert_allclose(left_out.distance[picture], distance, rtol=0.15)
        score = float(image_score(own[None], distance[None], rows, 4))
        assert float(left_out.score[picture]) == pytest.approx(score, rel=0.05)


def test_a_memory_that_was_chosen_in_float16_gives_the_same_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patches = textured_patches(25)
    good, bank = chosen(patches, 0.1)
    monkeypatch.setattr(memory_bank_module, "_coreset_dtype", lambda device: torch.float16)
    rounded = chosen(patches, 0.1)[1]
    assert bank.exact and not rounded.exact
    distances = [good.left_out(one, 1, "memory").distance for one in (bank, rounded)]
    assert float(distances[1].mean()) == pytest.approx(float(distances[0].mean()), rel=0.01)


@pytest.mark.parametrize("coreset", [1, 2])
def test_one_row_or_two_still_give_left_out_scores(coreset: int) -> None:
    patches = textured_patches(5)
    good, bank = chosen(patches, coreset)
    left_out = good.left_out(bank, 3, "memory")
    assert torch.isfinite(left_out.distance).all() and (left_out.distance > 0).all()


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
