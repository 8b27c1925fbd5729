"""Alarm rules and the monitors that look at verdicts over time."""

from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import CapturedFrame, DataError, Result
from edge_ad_runtime.stream.watchers import Alarm, AlarmRule, Overload, largest_region


def captured(number: int = 0) -> CapturedFrame:
    return CapturedFrame(number=number, frame=np.zeros((4, 4, 3), np.uint8), camera="left")


def scored(score: float, hot: int = 1) -> Result:
    """A result with a limit of 100 and a region of so many pixels in a map of 100."""
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map.reshape(-1)[:hot] = score
    return Result(
        score=score,
        anomalous=score >= 100,
        threshold=100.0,
        anomaly_map=anomaly_map,
        latency_ms=1.0,
    )


@pytest.mark.parametrize(
    ("rule", "scores", "states"),
    [
        (AlarmRule(), [1, 100, 99], ".#."),
        (AlarmRule(frames=2, window=2), [100, 1, 100, 100, 1], "...#."),
        (AlarmRule(frames=2, window=3), [100, 1, 100, 1], "..#."),
        (AlarmRule(clear_frames=3), [100, 1, 1, 100, 1, 1, 1, 1], "######.."),
        (AlarmRule(clear_ratio=0.8), [100, 90, 81, 79, 90], "###.."),
        (AlarmRule(frames=2, window=5, clear_frames=2), [100, 100, 1, 1, 100, 100], ".##..#"),
    ],
)
def test_when_it_is_on(rule: AlarmRule, scores: list[float], states: str) -> None:
    alarm = Alarm(rule, lambda: 50.0)
    found, events = "", []
    for number, score in enumerate(scores):
        events.append(alarm.update(captured(number), scored(score)))
        found += "#" if alarm.on else "."
    assert found == states
    changes = [event.kind for event in events if event is not None]
    assert changes == [("alarm on", "alarm off")[index % 2] for index in range(len(changes))]


def test_small_regions_do_not_count() -> None:
    alarm = Alarm(AlarmRule(min_area=0.05), lambda: 50.0)
    assert alarm.update(captured(), scored(150, hot=4)) is None
    event = alarm.update(captured(7), scored(150, hot=5))
    assert event is not None
    assert (event.kind, event.camera, event.details) == (
        "alarm on",
        "left",
        {"frame": 7, "score": 150},
    )


def test_largest_region() -> None:
    values = np.zeros((6, 6), np.float32)
    assert largest_region(values, 1) == 0
    values[0, :3] = 1
    values[1, 3] = 1
    values[4:, 4:] = 1
    assert largest_region(values, 1) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"frames": 3, "window": 2},
        {"clear_frames": 0},
        {"clear_ratio": 0},
        {"min_area": 1},
    ],
)
def test_rules_that_cannot_hold(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected"):
        AlarmRule(**wrong)


def test_overload() -> None:
    now, skipped = [0.0], [0]
    overload = Overload(lambda: skipped[0], seconds=10, clock=lambda: now[0])
    events = []
    for second in range(60):
        now[0] = float(second)
        skipped[0] += 3 if 20 < second < 45 else 0
        events.append(overload.update(captured(), scored(1)))
    found = [event for event in events if event is not None]
    assert [event.kind for event in found] == ["overload"]
    assert "frames skipped" in found[0].message
