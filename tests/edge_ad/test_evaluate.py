"""Metrics, against scikit-learn and against slow transcriptions of their definitions."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_ad.data import Sample, ScoredSample
from edge_ad.evaluate import Evaluator
from edge_ad.evaluate.pixel_counts import PixelCounts
from edge_ad.run_metrics import decision_rates
from edge_ad_runtime.errors import DataError, EdgeAdError
from edge_ad_runtime.model.image import Preprocessing

SIZE = (64, 96)
GEOMETRY = Preprocessing(input_size=SIZE)
Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


def brute_force_pro(maps: Maps, masks: Masks, limit: float = 0.3) -> float:
    """Per-region overlap at every threshold that occurs, as the paper defines it."""
    structure = np.ones((3, 3))
    regions = [
        labels == index
        for labels, count in (ndimage.label(mask, structure) for mask in masks)
        for index in range(1, count + 1)
    ]
    owner = [i for i, mask in enumerate(masks) for _ in range(ndimage.label(mask, structure)[1])]
    good = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    x, y = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        x.append(float((good >= threshold).mean()))
        overlaps = [
            (maps[i][region] >= threshold).mean() for i, region in zip(owner, regions, strict=True)
        ]
        y.append(float(np.mean(overlaps)))
    grid = np.linspace(0, limit, 200_001)
    values = np.interp(grid, x, y)
    return float(((values[1:] + values[:-1]) / 2).mean())


def random_maps(seed: int, levels: int, offset: float = 0.0) -> tuple[Maps, Masks]:
    """Six maps of noise with `levels` values, three with regions of different sizes."""
    rng = np.random.default_rng(seed)
    maps: Maps = []
    masks: Masks = []
    for index in range(6):
        mask = np.zeros(SIZE, np.bool_)
        if index % 2:
            mask[4:7, 5:9] = True
            mask[7:9, 9:12] = True  # touches the first one by a corner: one region
            mask[20 : 30 + index, 40:80] = True
        values = rng.gamma(2.0, size=SIZE) + mask * rng.uniform(0.2, 2.0)
        values = np.ceil(values / 12 * levels) / levels * 12 + offset
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks


def fill(evaluator: Evaluator, maps: Maps, masks: Masks, folder: Path) -> None:
    for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        mask_path = None
        if mask.any():
            mask_path = folder / f"{index}.png"
            cv2.imwrite(str(mask_path), mask.astype(np.uint8) * 255)
        sample = Sample(
            path=Path(f"{index}"), label="cut" if mask.any() else "good", mask_path=mask_path
        )
        evaluator.add(sample, float(anomaly_map.max()), anomaly_map, GEOMETRY)


@pytest.mark.parametrize("offset", [0.0, 25.0])
@pytest.mark.parametrize(("seed", "levels"), [(0, 40), (1, 400), (2, 3)])
def test_pixel_metrics_equal_the_exact_ones(
    tmp_path: Path, seed: int, levels: int, offset: float
) -> None:
    maps, masks = random_maps(seed, levels, offset)
    evaluator = Evaluator()
    fill(evaluator, maps, masks, tmp_path)
    metrics = evaluator.result().metrics
    exact = roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())
    assert metrics.pixel_auroc == pytest.approx(exact, abs=1e-4)
    assert metrics.pixel_pro == pytest.approx(brute_force_pro(maps, masks), abs=1e-4)


def test_pixel_roc_of_continuous_maps_is_exact_to_four_digits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random(SIZE) < 0.05 for _ in range(20)]
    maps = [(10 + rng.normal(0, 0.5, SIZE) + mask).astype(np.float32) for mask in masks]
    evaluator = Evaluator()
    fill(evaluator, maps, masks, tmp_path)
    exact = roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(maps).ravel())
    assert evaluator.result().metrics.pixel_auroc == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(("inside", "outside", "expected"), [(2, 1, 1.0), (1, 2, 0.0)])
def test_perfect_and_hopeless_maps(
    tmp_path: Path, inside: float, outside: float, expected: float
) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[10:20, 10:20] = True
    evaluator = Evaluator()
    anomaly_map = np.where(mask, inside, outside).astype(np.float32)
    fill(evaluator, [anomaly_map], [mask], tmp_path)
    metrics = evaluator.result().metrics
    assert metrics.pixel_auroc == expected
    assert metrics.pixel_pro == pytest.approx(expected, abs=1e-9)


def test_a_constant_map_is_a_guess(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[:, :40] = True
    evaluator = Evaluator()
    fill(evaluator, [np.zeros(SIZE, np.float32) * -1], [mask], tmp_path)
    metrics = evaluator.result().metrics
    assert metrics.pixel_auroc == pytest.approx(0.5)
    assert metrics.pixel_pro == pytest.approx(0.15)


def scored(good: list[float], defective: list[float]) -> list[ScoredSample]:
    labelled = [("good", score) for score in good] + [("cut", score) for score in defective]
    return [
        ScoredSample(Sample(path=Path(f"{index}.png"), label=label), score)
        for index, (label, score) in enumerate(labelled)
    ]


def evaluate(good: list[float], defective: list[float]) -> Evaluator:
    evaluator = Evaluator()
    for item in scored(good, defective):
        evaluator.add(item.sample, item.score, np.ones(SIZE, np.float32), GEOMETRY)
    return evaluator


def test_image_metrics(caplog: pytest.LogCaptureFixture) -> None:
    good, defective = [1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 6.0]
    with caplog.at_level(logging.INFO):
        evaluation = evaluate(good, defective).result()
    labels = [False] * 4 + [True] * 3
    metrics = evaluation.metrics
    assert metrics.image_auroc == pytest.approx(roc_auc_score(labels, good + defective))
    assert metrics.image_ap == pytest.approx(average_precision_score(labels, good + defective))
    assert metrics.image_f1 == pytest.approx(0.8)
    assert (metrics.n_good, metrics.n_anomalous) == (4, 3)
    assert metrics.pixel_auroc is None and metrics.pixel_pro is None
    assert [item.score for item in evaluation.samples] == good + defective
    assert caplog.text.count("image metrics only") == 1


def test_a_perfect_detector_has_figures_of_at_most_one() -> None:
    # scikit-learn's average precision is 1.0000000000000002 here, which no run could be read with.
    metrics = evaluate([1.0, 2.0, 3.0], [float(score) for score in range(4, 13)]).result().metrics
    assert metrics.image_auroc == metrics.image_ap == metrics.image_f1 == 1.0
    # Nor with a PRO of that size, which a sum of steps gave for one in a hundred perfect maps.
    mask = np.zeros((32, 32), np.bool_)
    mask[3:6, 3:6] = True
    for seed in range(200):
        counts = PixelCounts()
        values = np.random.default_rng(seed).random((32, 32)) + 5 * mask
        counts.add(values.astype(np.float32), mask)
        pro, auroc = counts.pro(), counts.auroc()
        assert pro is not None and auroc is not None
        assert 0.9999 < pro <= 1 and 0.9999 < auroc <= 1


@pytest.mark.parametrize(("good", "defective"), [([1.0, 2.0], []), ([], [1.0, 2.0]), ([], [])])
def test_one_class_alone_gives_no_figures(good: list[float], defective: list[float]) -> None:
    metrics = evaluate(good, defective).result().metrics
    assert metrics.image_auroc is metrics.image_ap is metrics.image_f1 is None
    assert metrics.pixel_auroc is metrics.pixel_pro is None
    assert (metrics.n_good, metrics.n_anomalous) == (len(good), len(defective))


def test_a_picture_without_its_mask_is_named_and_left_out_of_the_pixel_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = Evaluator()
    fill(evaluator, *random_maps(0, 40), tmp_path)
    before = evaluator.result().metrics
    sample = Sample(path=Path("lost.png"), label="cut")
    evaluator.add(sample, 1.0, np.ones(SIZE, np.float32), GEOMETRY)
    metrics = evaluator.result().metrics
    assert before.pixel_auroc is not None
    assert (metrics.pixel_auroc, metrics.pixel_pro) == (before.pixel_auroc, before.pixel_pro)
    assert metrics.n_anomalous == before.n_anomalous + 1
    assert "no mask for 1 of 4" in caplog.text and "lost.png" in caplog.text


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0])
def test_refuses_impossible_scores(score: float) -> None:
    with pytest.raises(EdgeAdError, match=r"part\.png"):
        Evaluator().add(Sample(path=Path("part.png")), score, np.ones(SIZE, np.float32), GEOMETRY)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_refuses_impossible_maps(value: float) -> None:
    anomaly_map = np.ones(SIZE, np.float32)
    anomaly_map[3, 4] = value
    with pytest.raises(EdgeAdError, match=r"part\.png"):
        Evaluator().add(Sample(path=Path("part.png")), 1.0, anomaly_map, GEOMETRY)


def test_masks_go_the_way_of_the_frame(tmp_path: Path) -> None:
    """A mask at full size, cut from the centre like its frame."""
    preprocessing = Preprocessing(input_size=(64, 64), resize=80)
    mask = np.zeros((160, 240), np.uint8)
    mask[60:100, 100:140] = 255
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[22:42, 22:42] = 1
    evaluator = Evaluator()
    sample = Sample(path=Path("0.png"), label="cut", mask_path=tmp_path / "m.png")
    evaluator.add(sample, 1.0, anomaly_map, preprocessing)
    assert evaluator.result().metrics.pixel_auroc == 1.0


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    sample = Sample(path=Path("0.png"), label="cut", mask_path=tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        Evaluator().add(sample, 1.0, np.ones(SIZE, np.float32), GEOMETRY)


@pytest.mark.parametrize(
    ("good", "defective", "expected"),
    [
        ([1, 2, 3, 4], [2, 3, 5], (0.5, 1 / 3)),
        ([1], [], (0.0, None)),
        ([], [1], (None, 1.0)),
        ([], [], (None, None)),
    ],
)
def test_decision_rates(
    good: list[float], defective: list[float], expected: tuple[float | None, float | None]
) -> None:
    assert decision_rates(scored(good, defective), 3) == expected
