"""Fusion: the weighted sum of PaDiM's and PatchCore's distances, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.data import Dataset, load_category
from edge_ad.models import Fusion, PaDiM, PatchCore, load

SIZE = (64, 96)


@pytest.fixture(scope="module")
def fitted(data_root: Path) -> Fusion:
    return Fusion(input_size=SIZE, coreset=0.2).fit(load_category("plate", data_root).train)


def frames(data_root: Path, detector: Fusion) -> torch.Tensor:
    test = load_category("plate", data_root).test
    batches = test.batches(detector.preprocessing, batch_size=len(test), description="test")
    return torch.from_numpy(np.concatenate([pictures for _, pictures in batches])).to(
        detector.device
    )


def test_the_map_is_the_weighted_sum_of_both_maps(fitted: Fusion, data_root: Path) -> None:
    train = load_category("plate", data_root).train
    padim = PaDiM(input_size=SIZE).fit(train)
    patchcore = PatchCore(input_size=SIZE, coreset=0.2).fit(train)
    pictures = frames(data_root, fitted)
    with torch.inference_mode():
        score, anomaly_map = fitted(pictures)
        expected = (
            fitted.weights[0] * padim(pictures)[1] + fitted.weights[1] * patchcore(pictures)[1]
        )
    assert torch.equal(fitted.memory, patchcore.memory)
    torch.testing.assert_close(anomaly_map, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(score, expected.amax(dim=(1, 2)), rtol=1e-4, atol=1e-4)


def test_both_parts_have_the_same_spread_on_left_out_pictures(
    fitted: Fusion, data_root: Path
) -> None:
    train = load_category("plate", data_root).train
    folds = [train.split(0.25, seed) for seed in range(3)]
    gaussian, memory = [], []
    for fit, held_out in folds:
        part = Fusion(input_size=SIZE, coreset=0.2, sigma=0.0).fit(fit)
        batches = held_out.batches(part.preprocessing, batch_size=4, description="held out")
        with torch.inference_mode():
            for _, pictures in batches:
                features, patches = part.embed(torch.from_numpy(pictures).to(part.device))
                whitened = part.whitening @ features - part.mean_whitened[:, :, None]
                gaussian.append(whitened.square().sum(dim=1).sqrt().flatten())
                memory.append(torch.cdist(patches.flatten(0, 1), part.memory).amin(dim=1))
    ratio = (torch.cat(gaussian).std() * fitted.weights[0]) / (
        torch.cat(memory).std() * fitted.weights[1]
    )
    assert 0.7 < float(ratio) < 1.4


def test_left_out_scores_are_those_of_new_pictures(data_root: Path) -> None:
    """A refit without a picture scores it as the fit said; the memory of the rest may differ."""
    train = load_category("plate", data_root).train
    detector = Fusion(input_size=SIZE, coreset=0.2).fit(train)
    assert detector.good is not None
    pictures = list(train.batches(detector.preprocessing, batch_size=1, description="train"))
    for picture in (0, 7, 19):
        others = Dataset([train[index] for index in range(len(train)) if index != picture])
        refit = Fusion(input_size=SIZE, coreset=0.2).fit(others)
        refit.weights = detector.weights
        with torch.inference_mode():
            score, _ = refit(torch.from_numpy(pictures[picture][1]).to(refit.device))
        assert float(score) == pytest.approx(float(detector.good.scores[picture]), rel=0.06)


def test_it_finds_the_defects_and_loads_as_it_was_saved(
    fitted: Fusion, data_root: Path, tmp_path: Path
) -> None:
    evaluation = fitted.evaluate(load_category("plate", data_root).test)
    assert evaluation.metrics.image_auroc == 1.0
    fitted.save(tmp_path)
    pictures = frames(data_root, fitted)
    with torch.inference_mode():
        assert torch.equal(load(tmp_path)(pictures)[1], fitted(pictures)[1])


def test_the_blur_grows_with_the_input() -> None:
    assert Fusion(input_size=(256, 256)).config.sigma == 4.0
    assert Fusion(input_size=(384, 384)).config.sigma == 6.0
    assert PaDiM(input_size=(384, 384), sigma=4.0).config.sigma == 4.0


def test_the_memory_is_not_empty_where_every_feature_map_is_finer_than_the_grid(
    data_root: Path,
) -> None:
    train = load_category("plate", data_root).train
    detector = Fusion(input_size=SIZE, layers=("stage3",), grid_stride=16, coreset=0.2).fit(train)
    assert detector.memory.shape[1] == detector.n_channels == 40
    assert detector.predict([np.zeros((64, 96, 3), np.uint8)])[0].score > 0
