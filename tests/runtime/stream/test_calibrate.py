"""`edge-ad calibrate`: from a video, a folder, a camera that stops; per camera; what is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from edge_ad.cli import main
from edge_ad_runtime import CameraError, FakeCamera, ModelInfo, Scorer, cameras
from edge_ad_runtime.files import locked
from edge_ad_runtime.model.calibration import calibrate
from edge_ad_runtime.model.device_calibration import (
    combine,
    digest_of,
    read_calibrations,
)
from edge_ad_runtime.model.info import MODEL_KEY
from edge_ad_runtime.model.location import calibration_path
from edge_ad_runtime.stream.calibrate import collect_good_parts, doubts, refusal

Frame = NDArray[np.uint8]
TRAINING = calibrate(
    np.random.default_rng(0).normal(60, 4, 100), np.random.default_rng(0).normal(70, 4, 100)
)


def part(rng: np.random.Generator, brightness: float = 60.0) -> Frame:
    """A part of its own texture; the tiny model scores its mean grey level."""
    texture = cv2.resize(rng.normal(0, 25, (4, 8)), (96, 48), interpolation=cv2.INTER_LINEAR)
    texture -= texture.mean()
    grey = np.clip(brightness + rng.normal(0, 4) + texture, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.fixture
def trained(write_model: Callable[..., Path], info: ModelInfo) -> Path:
    """A model file that holds the scores of its training, of which the limit is some 71."""
    metadata = info.to_metadata()
    document = json.loads(metadata[MODEL_KEY]) | {
        "calibration": TRAINING.to_json(),
        "threshold": TRAINING.limit(),
    }
    return write_model("plate.onnx", metadata=metadata | {MODEL_KEY: json.dumps(document)})


@pytest.fixture
def parts(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures of parts that are 10 grey levels brighter than those of the training."""

    def write(count: int, brightness: float = 70.0, spread: float = 0.0) -> Path:
        rng = np.random.default_rng(1)
        folder = tmp_path / f"parts{count}"
        folder.mkdir()
        for index in range(count):
            frame = part(rng, brightness + spread * rng.normal())
            cv2.imwrite(str(folder / f"{index:03}.png"), frame)
        return folder

    return write


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_folder_gives_the_limit_of_every_camera(
    trained: Path, parts: Callable[..., Path]
) -> None:
    folder = parts(25)
    result = run("calibrate", trained, "--images", folder, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["path"] == str(calibration_path(trained)) == f"{trained}.calibration.json"
    assert (figures["camera"], figures["n"], figures["n_device"]) == ("", 125, 25)
    assert figures["limit"] == pytest.approx(TRAINING.limit() + 10, abs=3)
    document = json.loads(calibration_path(trained).read_text())
    assert document["model_sha256"] == digest_of(trained)
    (entry,) = document["cameras"]
    assert {"limit", "rate", "basis", "n", "when", "camera"} <= set(entry)
    promise = run("calibrate", trained, "--images", folder).stdout
    assert "like those of the calibration" in promise and "9 of 10 calibrations" in promise
    # ... which predict, stream and info use and name from then on.
    predicted = run("predict", trained, folder, "--json")
    assert {line["threshold"] for line in json.loads(predicted.stdout)} == {figures["limit"]}
    assert "calibrated on" in predicted.stderr
    streamed = run("stream", "--model", trained, "--camera", f"left={folder}")
    verdicts = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert {line["threshold"] for line in verdicts if "score" in line} == {figures["limit"]}
    assert f"left: limit {figures['limit']:.4g}, calibrated on" in streamed.stderr
    assert "every other camera" in run("info", trained).stdout
    # An explicit threshold wins over it.
    forced = run("predict", trained, folder, "--json", "--threshold", "12")
    assert json.loads(forced.stdout)[0]["threshold"] == 12
    assert "limit 12.0000: set by the user" in forced.stderr


def test_each_camera_has_its_own(
    trained: Path, parts: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    bright, dark = parts(25, 70), parts(24, 55)
    assert run("calibrate", trained, "--camera", f"left={bright}", "--count", 25).exit_code == 0
    assert run("calibrate", trained, "--camera", f"right={dark}", "--count", 24).exit_code == 0
    known = read_calibrations(trained, digest_of(trained))
    limits = {name: item.calibration.limit() for name, item in known.items()}
    assert set(limits) == {"left", "right"} and limits["left"] > limits["right"] + 10
    cameras_given = [f"{name}={folder}" for name, folder in (("left", bright), ("right", dark))]
    streamed = run(
        "stream", "--model", trained, "--camera", cameras_given[0], "--camera", cameras_given[1],
        "--camera", f"other={dark}",
    )  # fmt: skip
    found: dict[str, set[float]] = {}
    for line in map(json.loads, streamed.stdout.splitlines()):
        if "score" in line:
            found.setdefault(line["camera"], set()).add(line["threshold"])
    own = TRAINING.limit()
    assert found == {"left": {limits["left"]}, "right": {limits["right"]}, "other": {own}}
    # predict cannot know which camera took the pictures.
    undecided = run("predict", trained, dark, "--json")
    assert json.loads(undecided.stdout)[0]["threshold"] == own
    assert "--camera: left, right" in caplog.text
    chosen = run("predict", trained, dark, "--json", "--camera", "right")
    assert json.loads(chosen.stdout)[0]["threshold"] == limits["right"]
    assert run("predict", trained, dark, "--camera", "up").exit_code == 1


def test_two_cameras_at_once_keep_both_limits(
    trained: Path, parts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second reads what the first wrote: until then it waits."""
    monkeypatch.setattr("edge_ad_runtime.model.device_calibration._LOCK_SECONDS", 0)
    command = ("calibrate", trained, "--images", parts(25), "--false-alarm-rate", "2%", "--json")
    with locked(trained):
        refused = run(*command)
    assert refused.exit_code == 1 and "nothing has been changed" in refused.stderr
    rate = run(*command)
    assert json.loads(rate.stdout)["rate"] == 0.02
    assert sorted(path.name for path in trained.parent.glob("*.onnx*")) == [
        trained.name,
        calibration_path(trained).name,
    ]


def test_a_model_that_is_replaced_meanwhile_keeps_its_calibration(
    trained: Path,
    write_model: Callable[..., Path],
    parts: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, metadata = parts(25), Scorer(trained).info.to_metadata()

    def replaced(*_: object) -> list[str]:
        write_model("plate.onnx", metadata=metadata, divisor=2.0)
        calibration_path(trained).write_text("that of the new model")
        return []

    monkeypatch.setattr("edge_ad_runtime.stream.calibrate.doubts", replaced)
    result = run("calibrate", trained, "--images", folder)
    assert result.exit_code == 1 and "was replaced by another model meanwhile" in result.output
    assert calibration_path(trained).read_text() == "that of the new model"


def test_a_video(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 48))
    for _ in range(40):
        frame = part(rng, 65)
        for _ in range(5):  # each part stands for five frames
            writer.write(frame)
    writer.release()
    result = run("calibrate", trained, "--camera", path)
    assert result.exit_code == 0, result.output
    (entry,) = read_calibrations(trained, digest_of(trained)).values()
    assert (entry.camera, entry.n_device) == (str(path), 30)
    assert "30 of 30 parts" in result.stderr


def test_three_pictures_are_refused(trained: Path, parts: Callable[..., Path]) -> None:
    result = run("calibrate", trained, "--images", parts(3), "--yes")
    assert result.exit_code == 1
    assert "expected at least 5 different good parts, found 3" in result.stderr
    assert not calibration_path(trained).exists()


def test_a_standing_belt_is_refused(trained: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    still, folder = part(rng), tmp_path / "standing"
    folder.mkdir()
    for index in range(30):
        noisy = np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), noisy)
    result = run("calibrate", trained, "--images", folder, "--yes")
    assert result.exit_code == 1 and "29 further pictures of the same static" in result.stderr
    taken = run("calibrate", trained, "--images", folder, "--keep-alike", "--yes")
    assert taken.exit_code == 0


@pytest.mark.parametrize(
    ("count", "brightness", "spread", "doubt"),
    [
        (8, 65.0, 0.0, "8 parts are few"),
        (40, 60.0, 30.0, "times as wide as those of the training"),
        (40, 110.0, 0.0, "above the model's own limit"),
        (40, 45.0, 0.0, "below nearly every good part of the training"),
    ],
)
def test_doubts_are_asked_about(
    trained: Path,
    parts: Callable[..., Path],
    count: int,
    brightness: float,
    spread: float,
    doubt: str,
) -> None:
    folder = parts(count, brightness, spread)
    result = run("calibrate", trained, "--images", folder)
    assert result.exit_code == 1 and doubt in result.stderr and "give --yes" in result.stderr
    assert not calibration_path(trained).exists()
    assert run("calibrate", trained, "--images", folder, "--yes").exit_code == 0
    assert calibration_path(trained).exists()


def opened(monkeypatch: pytest.MonkeyPatch, frames: Iterator[Any]) -> None:
    camera = FakeCamera(frames, name="fake", live=True)
    monkeypatch.setattr(cameras, "open_source", lambda *arguments, **named: camera)
    monkeypatch.setattr("edge_ad_runtime.open_source", lambda *arguments: camera, raising=False)


def slow(count: int, end: Exception | None) -> Iterator[Any]:
    """Frames that a reader of the newest one does not miss."""
    import time

    rng = np.random.default_rng(5)
    for _ in range(count):
        time.sleep(0.03)
        yield part(rng, 65)
    if isinstance(end, CameraError):
        yield end


def test_a_camera_that_stops_leaves_the_old_calibration(
    trained: Path, parts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("calibrate", trained, "--images", parts(25)).exit_code == 0
    before = calibration_path(trained).read_bytes()
    opened(monkeypatch, slow(25, CameraError("unplugged")))
    result = run("calibrate", trained, "--camera", "left=0", "--count", 60)
    assert result.exit_code == 1
    assert "the camera stopped (unplugged), after" in result.stderr
    assert calibration_path(trained).read_bytes() == before


def test_a_camera_without_new_parts_is_given_up(trained: Path) -> None:
    rng = np.random.default_rng(6)
    still = [part(rng) for _ in range(3)]

    def standing() -> Iterator[Any]:
        yield from still
        while True:
            yield still[-1]

    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    camera = FakeCamera(standing(), live=True)
    found = collect_good_parts(Scorer(trained), camera, count=30, patience=20, clock=clock)
    assert "no new part for 20 s" in found.complaint and found.alike > 0
    refused = refusal(found)
    assert refused is not None and "same static scene" in refused


def test_interrupted_halfway_the_old_calibration_stays(
    trained: Path, parts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = parts(25)
    assert run("calibrate", trained, "--images", folder).exit_code == 0
    before = calibration_path(trained).read_bytes()
    scored = [0]
    original = Scorer.score_prepared

    def interrupt(self: Scorer, *arguments: Any, **named: Any) -> Any:
        scored[0] += 1
        if scored[0] == 12:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    monkeypatch.setattr(Scorer, "score_prepared", interrupt)
    result = run("calibrate", trained, "--images", folder, "--false-alarm-rate", "0.1")
    assert result.exit_code == 130
    assert calibration_path(trained).read_bytes() == before


def test_a_disk_that_takes_nothing(
    trained: Path, parts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = parts(25)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    result = run("calibrate", trained, "--images", folder)
    assert result.exit_code == 1 and "nothing has been changed" in result.stderr
    assert sorted(path.name for path in trained.parent.glob("*.json*")) == []


def test_a_folder_that_cannot_be_written_is_told_before_parts_are_shown(
    trained: Path, parts: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    result = run("calibrate", trained, "--images", parts(25))
    assert (
        result.exit_code == 1 and f"cannot write into the folder {trained.parent}" in result.stderr
    )
    assert "of 25 parts" not in result.stderr


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 1, "cameras": [{}]}', b"[" * 9999])
def test_a_damaged_calibration_is_named_and_not_used(
    trained: Path, parts: Callable[..., Path], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = parts(6)
    calibration_path(trained).write_bytes(content)
    result = run("predict", trained, folder, "--json")
    assert result.exit_code == 0 and "is damaged" in caplog.text
    assert json.loads(result.stdout)[0]["threshold"] == TRAINING.limit()


def test_of_another_model_it_is_named_and_not_used(
    trained: Path,
    parts: Callable[..., Path],
    write_model: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = parts(25)
    assert run("calibrate", trained, "--images", folder).exit_code == 0
    other = write_model("plate.onnx", divisor=2.0)
    assert other == trained
    result = run("stream", "--model", other, "--camera", folder)
    assert "was made for another file" in caplog.text
    assert "limit 100, 99th percentile" in result.stderr
    assert run("calibrate", other, "--images", folder).exit_code == 0
    assert set(read_calibrations(other, digest_of(other))) == {""}


def test_both_or_no_source_is_wrong_usage(trained: Path, tmp_path: Path) -> None:
    assert run("calibrate", trained).exit_code == 2
    assert run("calibrate", trained, "--camera", "0", "--images", tmp_path).exit_code == 2
    wrong = run("calibrate", trained, "--images", tmp_path / "none")
    assert wrong.exit_code == 1 and "expected a folder" in wrong.stderr
    rate = run("calibrate", trained, "--images", tmp_path, "--false-alarm-rate", "2")
    assert rate.exit_code == 2 and "false-alarm rate" in rate.stderr


def test_shifted_training_scores_make_the_limit_steadier() -> None:
    """Good parts that all score 10 more, 60 times: the camera's 20 parts alone set it too high."""
    rng = np.random.default_rng(7)
    alone: list[float] = []
    together: list[float] = []
    limits: list[tuple[float, float]] = []
    for _ in range(60):
        training = calibrate(rng.gamma(9, 5, 100), rng.gamma(9, 5, 100), rate=0.01)
        device = rng.gamma(9, 5, 20) + 10
        fresh = rng.gamma(9, 5, 4000) + 10
        both = combine(training, device, device, rate=0.01).limit()
        one = combine(None, device, device, rate=0.01).limit()
        limits.append((both, one))
        together.append(float((fresh >= both).mean()))
        alone.append(float((fresh >= one).mean()))
    assert 0.005 < np.mean(together) < 0.02
    assert np.mean(alone) < 0.005
    mean_both, mean_one = np.mean(limits, axis=0)
    assert mean_one > mean_both + 10


def test_no_doubts_about_sound_parts(trained: Path, parts: Callable[..., Path]) -> None:
    source = cameras.open_source(str(parts(30, 63)))
    scorer = Scorer(trained)
    found = collect_good_parts(scorer, source, count=None)
    assert refusal(found) is None and doubts(found, scorer.info) == []


def test_reload_takes_over_a_new_calibration(
    trained: Path, parts: Callable[..., Path], info: ModelInfo
) -> None:
    from edge_ad_runtime.stream.model_file import ModelFile

    running = ModelFile(trained, device="cpu", threads=1, threshold=None)
    assert running.slot.threshold("left") == TRAINING.limit()
    assert run("calibrate", trained, "--camera", f"left={parts(25)}", "--count", 25).exit_code == 0
    event = running.reload(None)
    assert event is not None and event.kind == "threshold changed" and "at left" in event.message
    assert running.slot.threshold("left") > TRAINING.limit() + 5
    assert running.slot.threshold("right") == TRAINING.limit()
    assert running.slot.info("left").calibration != running.slot.info("right").calibration
    assert running.reload(None) is None
    event = running.reload(50.0)
    assert event is not None
    assert running.slot.threshold("left") == running.slot.threshold("right") == 50
