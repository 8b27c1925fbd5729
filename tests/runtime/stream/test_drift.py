"""Drift: silent while nothing changes, quick when something does, one observation a part."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from edge_ad.cli import main
from edge_ad_runtime import CapturedFrame, ModelInfo, Result
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.calibration import calibrate
from edge_ad_runtime.model.image import SAME_SCENE, appearance
from edge_ad_runtime.stream.drift import ALARM_CAPITAL, Drift, ExchangeabilityTest, Reference

Frame = NDArray[np.uint8]


def first_alarm(test: ExchangeabilityTest, values: NDArray[np.float64]) -> int | None:
    """Return after how many values the test alarms."""
    for index, value in enumerate(values.tolist()):
        if test.update(value) >= ALARM_CAPITAL:
            return index + 1
    return None


def new_test(seed: int, training: NDArray[np.float64] | None = None) -> ExchangeabilityTest:
    values = () if training is None else training.tolist()
    return ExchangeabilityTest(Reference(values, random.Random(seed)))


@pytest.mark.parametrize("seed", range(6))
def test_no_alarm_while_nothing_changes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    skewed = rng.gamma(4.0, 10.0, 4000)
    assert first_alarm(new_test(seed), skewed) is None
    assert first_alarm(new_test(seed, skewed[:50]), skewed[50:]) is None
    ties = np.round(skewed / 10)
    assert first_alarm(new_test(seed), ties) is None


def test_what_stays_the_same_is_no_evidence() -> None:
    test = new_test(0)
    assert all(test.update(0.5) == pytest.approx(1.0) for _ in range(5000))


def test_a_fixed_reference_would_alarm() -> None:
    """Why all earlier parts count: 50 parts are not the distribution, and the stream is long."""
    alarms = 0
    for seed in range(12):
        values = np.random.default_rng(seed).normal(size=4000)
        reference = Reference(values[:50].tolist(), random.Random(seed))
        reference.add = lambda value: None  # type: ignore[method-assign]
        alarms += first_alarm(ExchangeabilityTest(reference), values[50:]) is not None
    assert alarms >= 3


@pytest.mark.parametrize("before", [100, 1000, 8000])
def test_a_change_is_found_as_soon_after_a_long_quiet_time(before: int) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for shift in (4.0, -4.0):
            values = np.concatenate([rng.normal(size=before), rng.normal(shift, 1, 100)])
            found = first_alarm(new_test(seed), values)
            assert found is not None and before + 10 <= found <= before + 50


def test_without_its_floor_a_quiet_day_would_hide_the_change() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=8000), rng.normal(4, 1, 60)])
    plain = ExchangeabilityTest(Reference((), random.Random(0)), floor=0.0)
    assert first_alarm(plain, values) is None


def test_a_slow_drift_is_found_before_it_is_large() -> None:
    """One standard deviation over 10,000 parts."""
    values = np.random.default_rng(3).normal(size=10_000) + np.linspace(0, 1, 10_000)
    found = first_alarm(new_test(3), values)
    assert found is not None and found < 8000


def test_a_twentieth_of_defects_is_no_change() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=3000) + 20 * (rng.random(3000) < 0.05)
        assert first_alarm(new_test(seed, rng.normal(size=200)), values) is None


def test_the_reference_holds_a_random_choice_of_everything() -> None:
    reference = Reference((), random.Random(0), size=500)
    for value in range(20_000):
        reference.add(float(value))
    kept = np.asarray(reference._values)
    assert len(kept) == 500 and (np.diff(kept) > 0).all()
    assert abs(kept.mean() - 10_000) < 1000
    assert reference.rank(-1.0) > 0.99 and reference.rank(1e9) < 0.01


# From here on: whole frames.


def part(rng: np.random.Generator, *, gain: float = 1.0) -> Frame:
    """A part of its own texture on a grey ground, 64 x 128."""
    texture = cv2.resize(rng.normal(0, 30, (8, 16)), (128, 64), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 3, (64, 128))
    grey = (100 + rng.normal(0, 2) + texture + noise) * gain
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def shown(frame: Frame, number: int = 0, **fields: Any) -> CapturedFrame:
    return CapturedFrame(number=number, frame=frame, camera="left", **fields)


def verdict(score: float) -> Result:
    return Result(
        score=score,
        anomalous=score >= 100,
        threshold=100.0,
        anomaly_map=np.zeros((32, 64), np.float32),
        latency_ms=1.0,
    )


def events(drift: Drift, parts: Iterator[tuple[CapturedFrame, Result]]) -> list[tuple[int, Event]]:
    found = []
    for index, (captured, result) in enumerate(parts):
        event = drift.update(captured, result)
        if event is not None:
            found.append((index, event))
    return found


def test_light_that_changes_is_told_once_each_time(info: ModelInfo) -> None:
    rng = np.random.default_rng(1)

    def parts() -> Iterator[tuple[CapturedFrame, Result]]:
        for gain in (1.0, 1.15, 1.0):
            for _ in range(300):
                yield shown(part(rng, gain=gain)), verdict(float(rng.normal(50, 5)))

    found = events(Drift(lambda: info), parts())
    assert [event.kind for _, event in found] == ["drift", "drift"]
    (first, risen), (second, fallen) = found
    assert 310 <= first <= 350 and 610 <= second <= 650
    assert risen.details["measure"] == "brightness" and "has risen" in risen.message
    assert "check the lamps" in risen.message and "has fallen" in fallen.message
    assert risen.camera == "left"


def test_blur_is_told(info: ModelInfo) -> None:
    rng = np.random.default_rng(2)

    def parts() -> Iterator[tuple[CapturedFrame, Result]]:
        for index in range(500):
            frame = part(rng)
            if index >= 300:
                frame = np.asarray(cv2.blur(frame, (3, 3)), dtype=np.uint8)
            yield shown(frame), verdict(float(rng.normal(50, 5)))

    ((index, event),) = events(Drift(lambda: info), parts())
    assert index <= 350 and event.details["measure"] == "sharpness"
    assert "check the focus" in event.message


def test_parts_that_have_moved_are_told_before_their_scores_change(info: ModelInfo) -> None:
    rng = np.random.default_rng(5)

    def parts(across: int, down: int) -> Iterator[tuple[CapturedFrame, Result]]:
        for index in range(400):
            frame = np.full((64, 128, 3), 60, np.uint8)
            x, y = 40 + rng.integers(-1, 2), 20 + rng.integers(-1, 2)
            if index >= 300:
                x, y = x + across, y + down
            frame[y : y + 20, x : x + 40] = part(rng)[:20, :40] + np.uint8(20)
            yield shown(frame), verdict(float(rng.normal(50, 5)))

    for moved, axis in (((3, 0), "horizontal"), ((0, 3), "vertical")):
        ((index, event),) = events(Drift(lambda: info), parts(*moved))
        measure = event.details["measure"]
        assert measure in (f"{axis} position", f"{axis} centre of brightness")
        assert 310 <= index <= 360
        assert f"the {measure} of the parts at left has moved" in event.message


def test_the_centre_of_brightness_is_that_of_the_picture() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    assert appearance(frame).centre == (0.5, 0.5)
    frame[:50, 150:] = 200
    assert appearance(frame).centre == pytest.approx((0.875, 0.25), abs=0.01)


def test_parts_that_are_as_bright_as_what_is_around_them_are_seen_to_move(info: ModelInfo) -> None:
    rng = np.random.default_rng(5)

    def parts() -> Iterator[tuple[CapturedFrame, Result]]:
        for index in range(400):
            frame = np.full((64, 128, 3), 100, np.uint8)
            x = 40 + int(rng.integers(-1, 2)) + (3 if index >= 300 else 0)
            blocks = rng.choice((60, 140), (6, 10, 1)).repeat(4, axis=0).repeat(4, axis=1)
            frame[20:44, x : x + 40] = blocks
            yield shown(frame), verdict(float(rng.normal(50, 5)))

    ((index, event),) = events(Drift(lambda: info), parts())
    assert 310 <= index <= 360 and event.details["measure"] == "horizontal position"


def test_light_from_another_side_is_told(info: ModelInfo) -> None:
    rng = np.random.default_rng(5)

    def parts() -> Iterator[tuple[CapturedFrame, Result]]:
        for index in range(400):
            side = np.linspace(-10, 10, 128) if index >= 300 else np.zeros(128)
            frame = np.clip(part(rng) + side[None, :, None], 0, 255).astype(np.uint8)
            yield shown(frame), verdict(float(rng.normal(50, 5)))

    ((index, event),) = events(Drift(lambda: info), parts())
    assert index <= 360 and event.details["measure"] == "horizontal centre of brightness"
    assert "has moved" in event.message and "check the direction of the light" in event.message


def test_the_centre_of_the_edges_is_where_the_part_is() -> None:
    frame = np.full((100, 200, 3), 50, np.uint8)
    assert appearance(frame).edge_centre == (0.5, 0.5)
    frame[20:40, 150:190] = 200
    assert appearance(frame).edge_centre == pytest.approx((0.85, 0.3), abs=0.01)
    assert appearance(frame[:, :1]).edge_centre == (0.5, 0.5)  # a picture one pixel wide


def standing(rng: np.random.Generator, **fields: Any) -> Iterator[tuple[CapturedFrame, Result]]:
    """200 parts, then one bright part that stands under the camera for 400 frames."""
    for index in range(200):
        extra = {name: make(index) for name, make in fields.items()}
        yield shown(part(rng), **extra), verdict(float(rng.normal(50, 5)))
    still = part(rng, gain=1.1)
    for index in range(400):
        noisy = np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)
        extra = {name: make(index) for name, make in fields.items()}
        yield shown(noisy, **extra), verdict(float(rng.normal(62, 1)))


def test_a_standing_belt_is_one_part(info: ModelInfo) -> None:
    assert events(Drift(lambda: info), standing(np.random.default_rng(4))) == []


@pytest.mark.parametrize("field", ["trigger", "path"])
def test_each_trigger_and_each_file_is_a_part(info: ModelInfo, field: str) -> None:
    make: Callable[[int], Any] = str if field == "trigger" else lambda index: Path(f"{index}.png")
    found = events(Drift(lambda: info), standing(np.random.default_rng(4), **{field: make}))
    assert [event.kind for _, event in found] == ["drift"]


def scored(rng: np.random.Generator, scores: list[float]) -> Iterator[tuple[CapturedFrame, Result]]:
    for score in scores:
        yield shown(part(rng)), verdict(score)


def test_a_scene_unlike_the_training_is_told_from_the_start(info: ModelInfo) -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(200, 20, 99).tolist()
    ((index, event),) = events(Drift(lambda: info), scored(rng, scores))
    assert (index, event.kind) == (17, "scene changed")
    assert "from the start" in event.message and "edge-ad calibrate" in event.message


def test_scores_beside_those_of_the_training_are_told(info: ModelInfo) -> None:
    rng = np.random.default_rng(5)
    training = calibrate(rng.normal(50, 5, 200), rng.normal(50, 5, 200))
    known = replace(info, calibration=training)
    found = events(Drift(lambda: known), scored(rng, rng.normal(75, 5, 60).tolist()))
    ((index, event),) = found
    assert index <= 45 and event.details["measure"] == "score"
    assert events(Drift(lambda: info), scored(rng, rng.normal(75, 5, 60).tolist())) == []


def test_the_scene_changes_later_and_comes_back(info: ModelInfo) -> None:
    rng = np.random.default_rng(6)
    good, bad = [50.0] * 60, [150.0] * 60
    found = events(Drift(lambda: info), scored(rng, good + bad + good + bad))
    changes = [(index, event) for index, event in found if event.kind == "scene changed"]
    assert [index for index, _ in changes] == [77, 197]
    assert "not so before" in changes[0][1].message


def test_some_defects_are_no_change_of_the_scene(info: ModelInfo) -> None:
    rng = np.random.default_rng(7)
    scores = np.where(rng.random(1500) < 0.05, 200.0, rng.normal(50, 5, 1500)).tolist()
    assert events(Drift(lambda: info), scored(rng, scores)) == []


def test_another_model_starts_anew(info: ModelInfo) -> None:
    rng = np.random.default_rng(8)
    models = [info, replace(info, created_at="2026-02-02T00:00:00Z")]
    current = [models[0]]

    def parts() -> Iterator[tuple[CapturedFrame, Result]]:
        for index in range(400):
            current[0] = models[index >= 200]
            score = rng.normal(50, 5) if index < 200 else rng.normal(0.5, 0.1)
            yield shown(part(rng)), verdict(float(score))

    assert events(Drift(lambda: current[0]), parts()) == []


def test_what_counts_as_the_same_scene() -> None:
    rng = np.random.default_rng(9)
    one, other = part(rng), part(rng)
    noisy = np.clip(one + rng.normal(0, 5, one.shape), 0, 255).astype(np.uint8)
    brighter = np.clip(one * 1.05, 0, 255).astype(np.uint8)
    looks = appearance(one)
    assert looks.difference(appearance(noisy)) < SAME_SCENE
    assert looks.difference(appearance(brighter)) < SAME_SCENE
    assert looks.difference(appearance(other)) > SAME_SCENE


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (1080, 1920), (3000, 4000), (1, 5000)])
def test_a_frame_of_any_size_is_looked_at_small(size: tuple[int, int]) -> None:
    look = appearance(np.full((*size, 3), 80, np.uint8))
    assert max(look.grey.shape) <= 256
    assert look.brightness == 80 and look.dark_share == look.bright_share == 0
    assert look.log_sharpness < -5


def test_the_stream_tells_it_on_its_outputs(model: Path, tmp_path: Path) -> None:
    """100 pictures, then 60 with more light: one line of JSON, and one on stderr."""
    rng = np.random.default_rng(10)
    folder = tmp_path / "parts"
    folder.mkdir()
    for index in range(160):
        frame = part(rng, gain=1.15 if index >= 100 else 1.0) // 2  # far below the model's limit
        cv2.imwrite(str(folder / f"{index:03}.png"), frame)
    arguments = ["stream", "--model", str(model), "--camera", f"left={folder}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    (event,) = [line for line in lines if "event" in line]
    assert (event["event"], event["camera"]) == ("drift", "left")
    assert 110 <= event["frame"] <= 150
    assert event["measure"] in ("brightness", "score") and event["median"] > event["median_before"]
