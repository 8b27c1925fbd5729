"""Regions and p-values of verdicts: in frame pixels, in JSON, in pictures."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from edge_ad.cli import main
from edge_ad_runtime import ConfigError, ModelInfo, Preprocessing, Result, Scorer, draw_overlay
from edge_ad_runtime.model.calibration import Calibration, calibrate
from edge_ad_runtime.model.info import MODEL_KEY
from edge_ad_runtime.model.result import MOST_REGIONS, RegionFinder, false_alarms_in_words

GOOD = calibrate(np.linspace(10, 90, 200), np.linspace(10, 95, 200), rate=0.01)
HALF = Preprocessing(input_size=(32, 64))
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


def map_with(*boxes: tuple[int, int, int, int, float]) -> NDArray[np.float32]:
    """A cold map (32, 64) with boxes: x, y, width, height, value."""
    anomaly_map = np.zeros((32, 64), np.float32)
    for x, y, width, height, value in boxes:
        anomaly_map[y : y + height, x : x + width] = value
    return anomaly_map


def finder(**changes: Any) -> RegionFinder:
    return replace(RegionFinder(map_threshold=100.0, preprocessing=HALF), **changes)


def test_boxes_in_frame_pixels_with_area_peak_and_p_value() -> None:
    anomaly_map = map_with((4, 2, 8, 4, 120), (40, 20, 3, 3, 300), (20, 20, 5, 5, 99))
    hot, mild = finder(calibration=GOOD).find(anomaly_map, (320, 128))
    assert (hot.x, hot.y, hot.width, hot.height, hot.area, hot.peak) == (80, 200, 6, 30, 180, 300)
    assert (mild.x, mild.y, mild.width, mild.height, mild.area) == (8, 20, 16, 40, 640)
    assert hot.p_value == GOOD.map_p_value(300) and mild.p_value == GOOD.map_p_value(120)
    assert hot.p_value is not None and mild.p_value is not None and hot.p_value < mild.p_value


def test_a_centre_crop_is_laid_back() -> None:
    """200 x 400 -> 64 x 128 -> the middle 32 x 64: a pixel of the map is 3.125 of the frame."""
    crop = Preprocessing(input_size=(32, 64), resize=64)
    (region,) = finder(preprocessing=crop).find(map_with((0, 0, 64, 32, 200)), (200, 400))
    assert (region.x, region.y, region.width, region.height) == (100, 50, 200, 100)
    assert region.area == 200 * 100


@pytest.mark.parametrize("size", [(32, 64), (33, 65), (7, 500), (1080, 1920), (31, 31)])
@pytest.mark.parametrize("resize", [None, 64])
def test_boxes_never_leave_the_frame(size: tuple[int, int], resize: int | None) -> None:
    geometry = Preprocessing(input_size=(32, 64), resize=resize)
    corners = map_with((0, 0, 1, 1, 200), (63, 31, 1, 1, 200), (30, 10, 7, 7, 200))
    found = finder(preprocessing=geometry).find(corners, size)
    assert len(found) == 3
    for region in found:
        assert 0 <= region.x < region.x + region.width <= size[1]
        assert 0 <= region.y < region.y + region.height <= size[0]
        assert region.area >= 1


def test_small_regions_are_left_out_and_there_are_only_so_many() -> None:
    anomaly_map = map_with((4, 2, 8, 4, 120), (40, 20, 3, 3, 300))
    assert [region.peak for region in finder(min_area=0.01).find(anomaly_map, (32, 64))] == [120]
    speckled = map_with()
    speckled[::2, ::2] = np.arange(200, 200 + 512).reshape(16, 32)
    found = finder().find(speckled, (32, 64))
    assert len(found) == MOST_REGIONS
    assert [region.peak for region in found] == list(range(711, 711 - MOST_REGIONS, -1))


def verdict(score: float, anomaly_map: NDArray[np.float32]) -> Result:
    return Result(
        score=score,
        anomalous=score >= 100,
        threshold=100.0,
        anomaly_map=anomaly_map,
        latency_ms=1.0,
        p_value=GOOD.p_value(score),
        frame_size=(64, 128),
        finder=finder(),
    )


def test_a_good_part_has_no_regions_and_no_outlines(info: ModelInfo) -> None:
    anomaly_map = map_with((4, 2, 8, 4, 120))
    good, bad = verdict(99, anomaly_map), verdict(100, anomaly_map)
    assert good.regions == () and len(bad.regions) == 1
    assert good.fields(NOW)["regions"] == []
    (region,) = json.loads(json.dumps(bad.fields(NOW)))["regions"]
    assert region == {
        "x": 8, "y": 4, "width": 16, "height": 8, "area": 128, "peak": 120.0, "p_value": None
    }  # fmt: skip
    frame = np.full((64, 128, 3), 80, np.uint8)
    whites = [
        int((draw_overlay(frame, result, info)[-64:] > 180).all(axis=2).sum())
        for result in (good, bad)
    ]
    assert whites[0] == 0 and whites[1] > 20


@pytest.fixture
def with_calibration(write_model: Callable[..., Path], info: ModelInfo) -> Path:
    metadata = info.to_metadata()
    document = json.loads(metadata[MODEL_KEY]) | {"calibration": GOOD.to_json()}
    return write_model("calibrated.onnx", metadata=metadata | {MODEL_KEY: json.dumps(document)})


def test_the_scorer_tells_both(with_calibration: Path, frames: Callable[..., list[Any]]) -> None:
    scorer = Scorer(with_calibration)
    assert isinstance(scorer.info.calibration, Calibration)
    good, bad = scorer.score_batch(frames(50, 200, size=(96, 96)))
    assert good.p_value == GOOD.p_value(50) and good.regions == ()
    assert bad.p_value == GOOD.p_value(200) and bad.p_value < 0.001
    (whole,) = bad.regions
    assert (whole.x, whole.y, whole.width, whole.height, whole.area) == (0, 0, 96, 96, 9216)
    assert whole.peak == 200 and whole.p_value == GOOD.map_p_value(200)
    assert "p_value" in good.fields(NOW)


def test_an_old_model_file_has_no_p_value(model: Path, frames: Callable[..., list[Any]]) -> None:
    result = Scorer(model).score(frames(200)[0])
    assert result.p_value is None and result.fields(NOW)["p_value"] is None
    assert [region.p_value for region in result.regions] == [None]


def test_a_smallest_region_that_cannot_be(model: Path) -> None:
    with pytest.raises(ConfigError, match="expected a smallest region"):
        Scorer(model, min_region_area=1)


@pytest.mark.parametrize(
    ("p_value", "words"),
    [(0.5, "500"), (0.00123, "1.2"), (0.01, "10"), (2e-9, "fewer than 0.01")],
)
def test_a_p_value_in_words(p_value: float, words: str) -> None:
    assert false_alarms_in_words(p_value) == f"expected false alarms in 1,000 good parts: {words}"


def test_the_smallest_region_is_an_option(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    """A part with a small and a large bright area, by both commands and by a TOML file."""
    frame = np.full((64, 128, 3), 90, np.uint8)
    frame[4:8, 4:8] = 255
    frame[20:60, 20:120] = 255
    cv2.imwrite(str(tmp_path / "part.png"), frame)
    model, picture = str(write_model()), str(tmp_path / "part.png")
    config = tmp_path / "line.toml"
    config.write_text(
        f"model = {model!r}\nmin_region_area = 0.01\n[[camera]]\nsource = {picture!r}\n"
    )
    for options, count in (([], 2), (["--min-region-area", "0.01"], 1)):
        predicted = CliRunner().invoke(main, ["predict", model, picture, "--json", *options])
        assert len(json.loads(predicted.stdout)[0]["regions"]) == count
        arguments = ["stream", "--model", model, "--camera", picture, *options]
        streamed = CliRunner().invoke(main, arguments)
        assert len(json.loads(streamed.stdout)["regions"]) == count
    configured = CliRunner().invoke(main, ["stream", "--config", str(config)])
    assert len(json.loads(configured.stdout)["regions"]) == 1
    wrong = CliRunner().invoke(main, ["predict", model, picture, "--min-region-area", "1"])
    assert wrong.exit_code == 2
