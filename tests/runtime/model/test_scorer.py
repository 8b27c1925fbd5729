"""Scorer: refusals, devices, batches."""

import copy
import json
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_ad_runtime import DataError, DeviceError, MissingExtraError, ModelFileError, Scorer
from edge_ad_runtime.model import scorer as scorer_module
from edge_ad_runtime.model.info import MODEL_KEY, VERSION_KEY
from edge_ad_runtime.model.location import signature_path, slots_folder
from edge_ad_runtime.model.signature import RequiredSignature, Signed

MakeFrames = Callable[..., list[Any]]

FLOAT = 1  # of ONNX's TensorProto.DataType


def test_scores_and_judges(model: Path, frames: MakeFrames) -> None:
    scorer = Scorer(model, device="cpu")
    good, bad = (scorer.score(frame) for frame in frames(99, 100))
    assert (good.score, good.anomalous) == (99.0, False)
    assert (bad.score, bad.anomalous, bad.threshold) == (100.0, True, 100.0)
    assert bad.anomaly_map.shape == (32, 64)
    assert bad.anomaly_map.dtype == np.float32
    assert bad.latency_ms > 0
    assert scorer.provider == "CPUExecutionProvider"
    assert scorer.info.category == "plate"


def test_a_model_that_is_installed_meanwhile_lends_no_signature_to_the_one_before(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cable.onnx"
    slots = [slots_folder(path) / name / path.name for name in "ab"]
    for slot in slots:
        slot.parent.mkdir(parents=True)
        write_model("new.onnx").rename(slot)
    path.symlink_to(slots[0].relative_to(tmp_path))
    real, checked = scorer_module.read_model, list[Path]()

    def late(file: Path) -> bytes:
        data = real(file)
        path.unlink()
        path.symlink_to(slots[1].relative_to(tmp_path))
        return data

    class Required(RequiredSignature):
        def check(self, path: Path, model: bytes) -> Signed:
            checked.append(signature_path(path))
            return Signed(name="cable.onnx", version=1)

    monkeypatch.setattr(scorer_module, "read_model", late)
    Scorer(path, device="cpu", required=Required(public_key=b"", least_version=0))
    assert checked == [signature_path(slots[0])]


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_batches(
    write_model: Callable[..., Path], frames: MakeFrames, batch: int | str, count: int
) -> None:
    scorer = Scorer(write_model(batch=batch), device="cpu", threads=1)
    values = [10 * index for index in range(count)]
    results = scorer.score_batch(frames(*values))
    assert [result.score for result in results] == values
    assert all(result.anomaly_map.shape == (32, 64) for result in results)


def test_many_frames_are_scored_a_few_at_a_time(
    model: Path, frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(model, device="cpu")
    sizes: list[int] = []
    infer = scorer._infer

    def counted(batch: Any) -> Any:
        sizes.append(len(batch))
        return infer(batch)

    monkeypatch.setattr(scorer, "_infer", counted)
    results = scorer.score_batch(frames(*range(40)))
    assert [result.score for result in results] == list(range(40))
    assert sizes == [16, 16, 8]


def test_frames_of_a_batch_may_differ_in_size(model: Path, frames: MakeFrames) -> None:
    mixed = frames(10) + frames(20, size=(100, 40)) + frames(30, size=(32, 64))
    assert [result.score for result in Scorer(model).score_batch(mixed)] == [10, 20, 30]


def test_a_batch_may_be_an_array_or_a_generator(model: Path, frames: MakeFrames) -> None:
    scorer = Scorer(model, threads=1)
    assert [result.score for result in scorer.score_batch(np.stack(frames(10, 20)))] == [10, 20]
    alive, most = 0, 0

    def read() -> Iterator[Any]:
        nonlocal alive, most
        for value in range(40):
            (frame,) = frames(value)
            alive, most = alive + 1, max(most, alive + 1)
            weakref.finalize(frame, gone)
            yield frame
            del frame

    def gone() -> None:
        nonlocal alive
        alive -= 1

    assert [result.score for result in scorer.score_batch(read())] == list(range(40))
    assert most < 40
    with pytest.raises(DataError, match="give one frame to score"):
        scorer.score_batch(frames(1)[0])


def test_a_scorer_stays_in_its_process(model: Path, frames: MakeFrames) -> None:
    scorer = Scorer(model, threads=1)
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            send(scorer)
    assert scorer.with_threshold(5).score(frames(6)[0]).anomalous and scorer.threshold == 100
    result = scorer.score(frames(100)[0])
    assert pickle.loads(pickle.dumps(result)).fields() == result.fields()
    assert list(json.loads(json.dumps(result.fields())))[:3] == ["score", "threshold", "anomalous"]


def test_own_threshold(model: Path, frames: MakeFrames) -> None:
    scorer = Scorer(model, threshold=5)
    assert scorer.score(frames(6)[0]).anomalous
    assert scorer.info.threshold == 5
    with pytest.raises(DataError, match="finite"):
        Scorer(model, threshold=float("nan"))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8), np.uint8), "uint8 of 8x8:.*GRAY2BGR"),
        (np.zeros((8, 8, 4), np.uint8), "8x8x4.*BGRA2BGR"),
        (np.zeros((1, 8, 8, 3), np.uint8), "it is a batch: give it to score_batch"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        ("part.png", "read it with read_frame"),
        (np.zeros((8, 8, 3), np.float32), r"float32.*255 \* frame"),
        (np.zeros((0, 8, 3), np.uint8), "0x8x3"),
        ([[1, 2, 3]], "got list: give several frames to score_batch"),
        (None, "got NoneType: cv2.imread returns None"),
        (object(), r"got object: convert it with np.asarray, and RGB to BGR"),
    ],
)
def test_refuses_frames(model: Path, frame: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Scorer(model).score(frame)


def test_takes_frames_that_are_views(model: Path, frames: MakeFrames) -> None:
    view = frames(40, size=(64, 128))[0][::2, ::-2]
    assert Scorer(model).score(view).score == 40


def test_a_score_that_is_no_number_is_not_good(
    write_model: Callable[..., Path], frames: MakeFrames
) -> None:
    with pytest.raises(DataError, match="finite"):
        Scorer(write_model(divisor=0.0)).score(frames(0)[0])


def _version(text: str) -> dict[str, str]:
    return {VERSION_KEY: text, MODEL_KEY: "{}"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": {}}, "edge-ad model file"),
        ({"metadata": _version("2")}, "format version 2.*update edge-ad"),
        ({"metadata": _version("1")}, "damaged"),
        ({"metadata": _version("x")}, "whole number"),
        ({"input_name": "image"}, "one input 'frame'.*'image'"),
        ({"input_type": FLOAT}, "one input 'frame'"),
        ({"map_name": "map"}, "outputs 'score' and 'anomaly_map'"),
        ({"batch": 4}, "batch"),
    ],
)
def test_refuses_models(
    write_model: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    path = write_model(**changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        Scorer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x89PNG\r\n" * 100, None])
def test_refuses_other_files(
    model: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelFileError, match="not an ONNX model, or it is damaged"):
        Scorer(model, device="cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_refuses_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match="cannot read the model file"):
        Scorer(tmp_path / name)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is built in"
)
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_not_there(model: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=f"'{device}'.*--device cpu"):
        Scorer(model, device=device)


def test_a_device_nobody_knows(model: Path) -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda, tensorrt"):
        Scorer(model, device="gpu")


def test_no_threads(model: Path) -> None:
    with pytest.raises(DeviceError, match="at least one thread"):
        Scorer(model, threads=0)


def test_without_onnxruntime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime, or onnxruntime-gpu for CUDA"):
        Scorer(model)
