"""The limit of a camera: its own, told on every output, kept over a reload and a restart."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import CapturedFrame, ConfigError, DataError, Result, Scorer, Stream
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.stream.config import StreamConfig, parse_config
from edge_ad_runtime.stream.model_slot import ModelSlot, Override
from edge_ad_runtime.stream.thresholds import Thresholds

WriteModel = Callable[..., Path]


class Events:
    def __init__(self) -> None:
        self.found: list[Event] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        pass

    def event(self, event: Event) -> None:
        self.found.append(event)

    def close(self) -> None:
        pass

    def kinds(self) -> list[str]:
        return [event.kind for event in self.found]


def configured(model: Path, pictures: Path, **more: Any) -> StreamConfig:
    """Two cameras with one model."""
    cameras = [{"name": name, "source": str(pictures)} for name in ("left", "right")]
    return parse_config({"model": str(model), "camera": cameras, "stdout": False, **more})


@pytest.fixture
def stream(model: Path, pictures: Path) -> Iterator[Stream]:
    with Stream(configured(model, pictures)) as found:
        yield found


def judge(stream: Stream, camera: str, value: int) -> Result:
    frame = np.full((48, 96, 3), value, np.uint8)
    slot = stream.models[0].slot
    return slot.score([CapturedFrame(number=0, frame=frame, camera=camera)])[0]


def test_a_limit_belongs_to_one_camera_although_both_share_a_model(stream: Stream) -> None:
    stream.set_threshold("left", 180.0, who="Ann")
    assert not judge(stream, "left", 150).anomalous
    assert judge(stream, "right", 150).anomalous, "a defective part at the other camera"
    left, right = judge(stream, "left", 190), judge(stream, "right", 90)
    assert (left.threshold, left.anomalous) == (180, True)
    assert (right.threshold, right.anomalous) == (100, False)
    assert stream.info_of("left").threshold == 180
    assert stream.info_of("left").threshold_rule == "set by Ann"
    assert stream.info_of("right").threshold == 100
    stream.reset_threshold("left", who="Ann")
    assert judge(stream, "left", 150).anomalous


def test_both_cameras_in_one_batch_keep_their_limits(stream: Stream) -> None:
    stream.set_threshold("left", 180.0)
    frame = np.full((48, 96, 3), 150, np.uint8)
    batch = [CapturedFrame(number=0, frame=frame, camera=name) for name in ("left", "right")]
    results = stream.models[0].slot.score(batch)
    assert [result.anomalous for result in results] == [False, True]


def test_the_last_of_two_changes_is_told_last(stream: Stream) -> None:
    told: list[float] = []
    other = threading.Thread(target=stream.set_threshold, args=("left", 170.0))

    def report(event: Event) -> None:
        if other.ident is None:  # before the first change is told
            other.start()
            other.join(0.3)
        told.append(float(str(event.details["new"])))

    stream._thresholds._report = report
    stream.set_threshold("left", 180.0)
    other.join(60)
    assert told == [180.0, 170.0] and stream.info_of("left").threshold == 170


def test_every_change_is_an_event_with_both_limits_and_who(stream: Stream) -> None:
    events = Events()
    stream.delivery.add(events)
    stream.set_threshold("left", 180.0, who="Ann")
    stream.set_threshold("left", 170.0, who="Ben")
    stream.reset_threshold("left", who="Ann")
    found = [(event.kind, event.camera, dict(event.details)) for event in events.found]
    assert found == [
        ("threshold changed", "left", {"old": 100.0, "new": 180.0, "who": "Ann"}),
        ("threshold changed", "left", {"old": 180.0, "new": 170.0, "who": "Ben"}),
        ("threshold changed", "left", {"old": 170.0, "new": 100.0, "who": "Ann"}),
    ]


@pytest.mark.parametrize(
    ("camera", "threshold"), [("nobody", 1.0), ("left", float("nan")), ("left", float("inf"))]
)
def test_what_is_refused_changes_nothing(stream: Stream, camera: str, threshold: float) -> None:
    events = Events()
    stream.delivery.add(events)
    with pytest.raises(ConfigError, match="expected"):
        stream.set_threshold(camera, threshold)
    with pytest.raises(ConfigError, match="nobody"):
        stream.reset_threshold("nobody")
    assert stream.info_of("left").threshold == 100 and events.found == []


def test_the_state_file_keeps_a_limit_over_a_restart(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    config = configured(model, pictures, state_file=str(state))
    with Stream(config) as stream:
        stream.set_threshold("left", 180.0, who="Ann")
        stream.set_threshold("right", 170.0, who="Ben")
        stream.reset_threshold("right", who="Ben")
    with Stream(config) as stream:
        assert stream.info_of("left").threshold == 180
        assert stream.info_of("left").threshold_rule == "set by Ann"
        assert stream.info_of("right").threshold == 100
    assert set(json.loads(state.read_text())["thresholds"]) == {"left"}


def test_a_camera_that_is_away_from_the_configuration_keeps_its_entry(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    both = configured(model, pictures, state_file=str(state))
    one = parse_config(
        {
            "model": str(model),
            "camera": [{"name": "right", "source": str(pictures)}],
            "stdout": False,
            "state_file": str(state),
        }
    )
    with Stream(both) as stream:
        stream.set_threshold("left", 180.0)
    with Stream(one) as stream:
        stream.set_threshold("right", 170.0)
    with Stream(both) as stream:
        limits = [stream.info_of(name).threshold for name in ("left", "right")]
    assert limits == [180, 170]


DAMAGED = [
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b"{}",
    b'{"version": 2, "thresholds": {}}',
    b'{"version": 1, "thresholds": []}',
    b'{"version": 1, "thresholds": {"left": 180}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": NaN, "who": "", "since": ""}}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": true, "who": "", "since": ""}}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": 1, "who": "a", "since": "today"}}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": 1, "who": "a", "since": 7}}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": 1, "since": "2026-01-01T00:00:00Z"}}}',
    b'{"version": 1, "thresholds": {"left": {"threshold": 1' + b"0" * 400 + b', "who": "a"}}}',
    b'{"version": 1, "thresholds": {"left": '
    b'{"threshold": 1, "who": "a", "since": "0001-01-01T00:00:00+12:00"}}}',
    b"x" * 2_000_000,
]


@pytest.mark.parametrize("data", DAMAGED, ids=[str(number) for number in range(len(DAMAGED))])
def test_a_damaged_state_file_is_set_aside_and_told(
    model: Path, pictures: Path, tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state.json"
    state.write_bytes(data)
    config = configured(model, pictures, state_file=str(state))
    with Stream(config) as stream:
        assert stream.info_of("left").threshold == 100
        assert "damaged" in caplog.text and "not in force" in caplog.text
        stream.set_threshold("left", 180.0)
    assert (tmp_path / "state.json.damaged").read_bytes() == data
    with Stream(config) as stream:
        assert stream.info_of("left").threshold == 180


def test_a_change_that_cannot_be_kept_is_in_force_and_says_so(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    events = Events()
    state = tmp_path / "new" / "state.json"
    with Stream(configured(model, pictures, state_file=str(state))) as stream:
        stream.delivery.add(events)
        shutil.rmtree(state.parent)
        stream.set_threshold("left", 180.0)
        assert stream.info_of("left").threshold == 180
    assert "not kept over a restart" in events.found[0].message


def test_a_state_file_that_could_not_be_written_is_refused_at_the_start(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        Stream(configured(model, pictures, state_file=str(tmp_path / "file/state.json")))


def test_two_streams_with_one_state_file_keep_each_other_s_entries(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    def alone(name: str) -> StreamConfig:
        camera = {"name": name, "source": str(pictures)}
        return parse_config(
            {
                "model": str(model),
                "camera": [camera],
                "stdout": False,
                "state_file": str(tmp_path / "state.json"),
            }
        )

    with Stream(alone("left")) as left, Stream(alone("right")) as right:
        left.set_threshold("left", 180.0)
        right.set_threshold("right", 170.0)
        left.set_threshold("left", 160.0)
    with Stream(configured(model, pictures, state_file=str(tmp_path / "state.json"))) as both:
        assert [both.info_of(name).threshold for name in ("left", "right")] == [160, 170]


def test_limits_set_at_the_same_moment_in_one_state_file_are_all_kept(
    model: Path, tmp_path: Path
) -> None:
    """By several streams: a lost one would be the model's own limit again after a restart."""
    path = tmp_path / "state.json"
    slot = ModelSlot(Scorer(model, device="cpu", threads=1))

    def change(stream: int) -> None:
        for number in range(5):
            name = f"{stream}-{number}"
            Thresholds({name: slot}, path, lambda event: None).set(name, 7.0, "somebody")

    threads = [threading.Thread(target=change, args=(stream,)) for stream in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["thresholds"]) == 20


def test_a_reload_keeps_what_people_have_set_and_says_so(
    write_model: WriteModel, pictures: Path
) -> None:
    model, events = write_model("model.onnx"), Events()
    config = configured(model, pictures)
    with Stream(config) as stream:
        stream.delivery.add(events)
        stream.set_threshold("left", 30.0, who="Ann")
        stream.reload(config)
        assert "the model has changed" not in events.found[-1].message
        shutil.copy(write_model("half.onnx", divisor=2.0), model)
        stream.reload(config)
        assert (judge(stream, "left", 80).score, judge(stream, "left", 80).anomalous) == (40, True)
        assert not judge(stream, "right", 80).anomalous
    assert events.kinds() == [
        "threshold changed",
        "threshold kept",
        "model replaced",
        "threshold kept",
    ]
    assert events.found[-1].camera == "left" and "Ann" in events.found[-1].message
    assert "the model has changed since" in events.found[-1].message


def test_an_installed_model_keeps_what_people_have_set_and_says_so(
    write_model: WriteModel, pictures: Path
) -> None:
    model, events = write_model("model.onnx"), Events()
    with Stream(configured(model, pictures)) as stream:
        stream.delivery.add(events)
        stream.set_threshold("left", 30.0, who="Ann")
        new = write_model("half.onnx", divisor=2.0)
        content = Scorer(new, threads=1).content
        shutil.copy(new, model)
        request = {"ask": "take over", "model": str(model), "content": content}
        stream._installs.answer(Document(request), lambda: False)
    assert events.kinds() == ["threshold changed", "model installed", "threshold kept"]
    assert "the model has changed since" in events.found[-1].message


def test_a_limit_set_during_a_reload_brings_no_old_model_back(
    write_model: WriteModel, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model("model.onnx")
    config = configured(model, pictures)
    with Stream(config) as stream:
        slot = stream.models[0].slot
        new = Scorer(write_model("half.onnx", divisor=2.0), threads=1)
        exchanged = threading.Thread(target=slot.exchange, args=(new, "new"))
        tried, go_on = threading.Event(), threading.Event()
        score = Scorer.score_prepared

        def hold(scorer: Scorer, *arguments: Any, **more: Any) -> list[Result]:
            if threading.current_thread() is exchanged:
                tried.set()
                assert go_on.wait(60)
            return score(scorer, *arguments, **more)

        monkeypatch.setattr(Scorer, "score_prepared", hold)
        exchanged.start()
        assert tried.wait(60)
        stream.set_threshold("left", 30.0, who="Ann")
        go_on.set()
        exchanged.join(60)
        result = judge(stream, "left", 80)
        assert (result.score, result.threshold) == (40, 30), "the new model, and the new limit"


def test_changes_and_exchanges_from_many_threads(write_model: WriteModel) -> None:
    scorers = [
        Scorer(write_model(f"{divisor}.onnx", divisor=divisor), threads=1) for divisor in (1, 2)
    ]
    slot = ModelSlot(scorers[0])
    faults: list[str] = []
    frame = np.full((48, 96, 3), 80, np.uint8)

    def change(camera: str) -> None:
        for number in range(300):
            slot.set_override(camera, Override(threshold=float(number), who=camera))
            if slot.threshold(camera) != number:
                faults.append(f"{camera}: somebody else's limit")

    def exchange() -> None:
        for number in range(100):
            slot.exchange(scorers[number % 2], str(number))
            if slot.scorer is not scorers[number % 2]:
                faults.append("an old model is back")

    def score() -> None:
        for _ in range(200):
            result = slot.score([CapturedFrame(number=0, frame=frame, camera="a")])[0]
            if result.anomalous != (result.score >= result.threshold):
                faults.append("judged by another limit than the one in the result")

    works: list[Callable[[], None]] = [lambda: change("a"), lambda: change("b"), exchange, score]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    overrides: Mapping[str, Override] = slot.overrides
    assert faults == [] and {name: item.threshold for name, item in overrides.items()} == {
        "a": 299.0,
        "b": 299.0,
    }
