"""SPADE against the paper's formulas, written out slowly in NumPy."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.config import SpadeConfig
from edge_ad.data import Category, Dataset, load_category
from edge_ad.models import SPADE
from edge_ad_runtime.errors import EdgeAdError

Array = np.ndarray


def direct_image_score(query: Array, pooled: Array, k: int) -> tuple[float, Array]:
    """Mean distance to the k nearest pictures (sec. 3.2), and which they are."""
    distances = np.array([np.linalg.norm(query - other) for other in pooled])
    nearest = np.argsort(distances)[:k]
    return float(distances[nearest].mean()), nearest


def direct_map(patches: Array, gallery: Array, rule: str) -> Array:
    """Distance of each patch (P, d) to the nearest of the retrieved pictures' (k, P, d)."""
    result = np.empty(len(patches))
    for index, patch in enumerate(patches):
        candidates = gallery[:, index] if rule == "position" else gallery.reshape(-1, len(patch))
        result[index] = min(np.linalg.norm(patch - other) for other in candidates)
    return result


@pytest.fixture(scope="module")
def category(data_root: Path) -> Category:
    return load_category("plate", data_root)


def frames_of(dataset: Dataset, detector: SPADE) -> torch.Tensor:
    batches = dataset.batches(detector.preprocessing, batch_size=64)
    return torch.from_numpy(np.concatenate([frames for _, frames in batches])).to(detector.device)


@pytest.mark.parametrize("rule", ["position", "full"])
@pytest.mark.parametrize("k", [1, 5])
def test_score_and_map_equal_the_formulas(category: Category, rule: str, k: int) -> None:
    detector = SPADE(
        weights="none",
        input_size=(64, 96),
        k=k,
        gallery_rule=rule,
        image_score="retrieval",
        dims="all",
    )
    detector.fit(category.train)
    with torch.inference_mode():
        train = [one.cpu() for one in detector.embed(frames_of(category.train, detector))]
        frames = frames_of(category.test, detector)[:4]
        pooled, patches = (one.cpu() for one in detector.embed(frames))
        score, anomaly_map = (one.cpu() for one in detector(frames))
    for index in range(len(frames)):
        expected, nearest = direct_image_score(pooled[index].numpy(), train[0].numpy(), k)
        assert score[index].item() == pytest.approx(expected, rel=1e-3)
        grid = direct_map(patches[index].numpy(), train[1].numpy()[nearest], rule)
        # The gallery is stored in float16.
        smoothed = detector.map_of(grid.astype(np.float32))
        np.testing.assert_allclose(anomaly_map[index], smoothed, rtol=5e-3, atol=1e-3)


def test_the_score_is_the_highest_value_of_the_map_unless_asked_otherwise(
    category: Category,
) -> None:
    by_map, by_retrieval = (
        SPADE(weights="none", input_size=(64, 96), image_score=image_score).fit(category.train)
        for image_score in (SpadeConfig().image_score, "retrieval")
    )
    frames = frames_of(category.test, by_map)
    with torch.inference_mode():
        (score, anomaly_map), (other_score, other_map) = by_map(frames), by_retrieval(frames)
    assert torch.equal(anomaly_map, other_map)
    assert torch.equal(score, anomaly_map.amax(dim=(1, 2)))
    assert not torch.allclose(score, other_score)
    assert by_map.good is not None
    np.testing.assert_array_equal(by_map.good.scores, by_map.good.map_maxima)


def test_a_run_of_the_first_version_keeps_the_papers_image_score() -> None:
    old = SpadeConfig().to_json()
    del old["image_score"]
    assert SpadeConfig.from_json(old).image_score == "retrieval"
    assert SpadeConfig.from_json(SpadeConfig().to_json()).image_score == "map"


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("rule", ["position", "full"])
def test_a_batch_scores_as_its_frames_do(category: Category, rule: str, batch: int) -> None:
    detector = SPADE(weights="none", input_size=(64, 64), k=5, gallery_rule=rule)
    frames = frames_of(category.test, detector.fit(category.train))[:batch]
    with torch.inference_mode():
        together, alone = detector(frames), [detector(frame[None]) for frame in frames]
    for index, atol in ((0, 0), (1, 1e-3)):
        apart = torch.cat([one[index] for one in alone])
        torch.testing.assert_close(together[index], apart, rtol=1e-3, atol=atol)


def test_more_neighbours_than_pictures_are_clamped_with_a_note(
    category: Category, caplog: pytest.LogCaptureFixture
) -> None:
    detector = SPADE(weights="none", input_size=(64, 64), k=50)
    with caplog.at_level(logging.WARNING):
        detector.fit(Dataset(category.train[:3]))
    assert "3 training pictures" in caplog.text
    (prediction,) = detector.predict([np.full((64, 64, 3), 255, np.uint8)])
    assert np.isfinite(prediction.score)


def test_one_picture_is_enough(category: Category) -> None:
    detector = SPADE(weights="none", input_size=(64, 64)).fit(Dataset(category.train[:1]))
    (prediction,) = detector.predict([np.zeros((64, 64, 3), np.uint8)])
    assert prediction.score > 0


def test_a_projection_keeps_distances_roughly(category: Category) -> None:
    full = SPADE(weights="none", input_size=(64, 64), dims="all")
    reduced = SPADE(weights="none", input_size=(64, 64), dims=64)
    a, b = torch.rand(2, 500, 176, generator=torch.Generator().manual_seed(0))
    ratio = ((a - b) @ reduced.projection).norm(dim=1) / ((a - b) @ full.projection).norm(dim=1)
    assert ratio.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "1 or more as k, got 0"),
        ({"gallery_rule": "none"}, "position, full as gallery_rule"),
        ({"image_score": "mean"}, "map, retrieval as image_score"),
        ({"dims": 177}, "dims from 1 to 176"),
        ({"layers": ["stage3"]}, "at least 2 layers"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(EdgeAdError, match=message):
        SPADE(weights="none", **options)  # type: ignore[arg-type]
