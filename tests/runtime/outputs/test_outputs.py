"""Overlays: colours by a fixed range, geometry, and files that are whole or not there."""

import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import (
    CapturedFrame,
    DataError,
    ModelInfo,
    OverlayFolder,
    Result,
    draw_overlay,
    heat_map,
    read_frame,
)
from edge_ad_runtime.model.overlay import color_range

MakeFrames = Callable[..., list[Any]]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)


def result_with_spot(score: float = 150.0) -> Result:
    """A map that is cold but for its upper left eighth."""
    anomaly_map = np.zeros((32, 64), np.float32)
    anomaly_map[:16, :16] = score
    return Result(
        score=score,
        anomalous=score >= 100,
        threshold=100.0,
        anomaly_map=anomaly_map,
        latency_ms=1.0,
    )


def test_colours_do_not_depend_on_the_rest_of_the_map() -> None:
    alone = heat_map(np.full((2, 2), 50, np.float32), 0, 100)
    beside = heat_map(np.array([[50, 0], [100, 1000]], np.float32), 0, 100)
    assert alone.dtype == np.uint8 and alone.shape == (2, 2, 3)
    assert (alone[0, 0] == beside[0, 0]).all()
    assert (beside[1, 0] == beside[1, 1]).all()


def test_the_limit_lies_inside_the_range() -> None:
    assert color_range(0.0, 100.0) == (0.0, 150.0)
    low, high = color_range(3.0, 3.0)
    assert low < high


@pytest.mark.parametrize("size", [(48, 96), (500, 400), (20, 30)])
def test_overlay_covers_the_defect_only(
    info: ModelInfo, frames: MakeFrames, size: tuple[int, int]
) -> None:
    frame = frames(80, size=size)[0]
    picture = draw_overlay(frame, result_with_spot(), info)
    strip = picture.shape[0] - size[0]
    assert strip > 0 and picture.shape[1:] == (size[1], 3)
    assert (picture[-1, -1] == 80).all()
    assert (picture[strip + size[0] // 8, size[1] // 16] != 80).any()
    assert (frame == 80).all()


def test_an_overlay_takes_a_few_times_the_memory_of_its_picture(info: ModelInfo) -> None:
    """A device draws pictures of a hundred megapixels beside a stream."""
    frame = np.full((1500, 2000, 3), 80, np.uint8)
    tracemalloc.start()
    try:
        draw_overlay(frame, result_with_spot(), info)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * frame.nbytes


def test_overlay_folder_keeps_the_anomalous(
    tmp_path: Path, info: ModelInfo, frames: MakeFrames
) -> None:
    folder = tmp_path / "kept" / "here"
    output = OverlayFolder(folder, info)
    frame = frames(80)[0]
    output.write(CapturedFrame(number=3, frame=frame, timestamp=MOMENT), result_with_spot())
    output.write(CapturedFrame(number=4, frame=frame, path=Path("a/b.png")), result_with_spot())
    output.write(CapturedFrame(number=5, frame=frame), result_with_spot(score=1.0))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["000004-b.jpg", "20260102T030405000678Z-000003.jpg"]
    assert read_frame(folder / names[0]).shape[1] == 96


def test_pictures_are_named_in_utc_whatever_a_source_gives(
    tmp_path: Path, info: ModelInfo, frames: MakeFrames
) -> None:
    there = MOMENT.astimezone(timezone(timedelta(hours=2)))
    captured = CapturedFrame(number=3, frame=frames(80)[0], timestamp=there)
    OverlayFolder(tmp_path, info).write(captured, result_with_spot())
    assert [path.name for path in tmp_path.iterdir()] == ["20260102T030405000678Z-000003.jpg"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, info: ModelInfo) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into the folder"):
        OverlayFolder(tmp_path / "file" / "folder", info)
