"""Tiny model files (score = mean of the frame, map = mean of its channels), pictures, videos.

The model files are written as protocol buffer bytes, field by field, so that these tests also run
in an environment that has only what a device has: no onnx, no PyTorch.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_ad_runtime import CapturedFrame, ModelInfo, Result

HEIGHT, WIDTH = 32, 64
Metadata = dict[str, str]
WriteModel = Callable[..., Path]


class ElementType(IntEnum):
    """Of ONNX's TensorProto.DataType, those that the tests need."""

    FLOAT = 1
    UINT8 = 2
    INT64 = 7


def make_info(threshold: float = 100.0) -> ModelInfo:
    return ModelInfo(
        method="padim",
        category="plate",
        backbone="none",
        input_size=(HEIGHT, WIDTH),
        threshold=threshold,
        threshold_rule="99th percentile of good pictures",
        false_alarm_rate=0.01,
        score_range=(10.0, 90.0),
        map_range=(0.0, 95.0),
        map_threshold=100.0,
        created_at="2026-01-02T03:04:05Z",
    )


@pytest.fixture(scope="session")
def info() -> ModelInfo:
    return make_info()


@pytest.fixture
def verdict() -> Callable[..., tuple[CapturedFrame, Result]]:
    """Make a black frame and its result."""

    def make(
        number: int = 0, *, anomalous: bool = True, camera: str = "left"
    ) -> tuple[CapturedFrame, Result]:
        result = Result(
            score=150.0 if anomalous else 1.0,
            anomalous=anomalous,
            threshold=100.0,
            anomaly_map=np.zeros((HEIGHT, WIDTH), np.float32),
            latency_ms=1.0,
        )
        frame = np.zeros((48, 96, 3), np.uint8)
        return CapturedFrame(number=number, frame=frame, camera=camera), result

    return make


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a model file; each argument makes it differ from a good one."""

    def write(
        name: str = "model.onnx",
        *,
        batch: int | str = "N",
        metadata: Metadata | None = None,
        input_name: str = "frame",
        input_type: int = ElementType.UINT8,
        map_name: str = "anomaly_map",
        divisor: float = 1.0,
    ) -> Path:
        shape = (batch, HEIGHT, WIDTH, 3)
        graph = (
            _field(1, _node("Cast", [input_name], "values", _attribute("to", ElementType.FLOAT)))
            + _field(1, _node("Div", ["values", "divisor"], "pixels"))
            + _field(1, _node("ReduceMean", ["pixels", "all"], "score", _attribute("keepdims", 0)))
            + _field(
                1, _node("ReduceMean", ["pixels", "channel"], map_name, _attribute("keepdims", 0))
            )
            + _field(2, "tiny")
            + _field(5, _tensor("all", ElementType.INT64, [3], struct.pack("<3q", 1, 2, 3)))
            + _field(5, _tensor("channel", ElementType.INT64, [1], struct.pack("<q", 3)))
            + _field(5, _tensor("divisor", ElementType.FLOAT, [], struct.pack("<f", divisor)))
            + _field(11, _value(input_name, input_type, shape))
            + _field(12, _value("score", ElementType.FLOAT, (batch,)))
            + _field(12, _value(map_name, ElementType.FLOAT, shape[:3]))
        )
        texts = make_info().to_metadata() if metadata is None else metadata
        path = tmp_path / name
        path.write_bytes(_model(graph, texts))
        return path

    return write


def _varint(value: int) -> bytes:
    head = value >> 7
    return bytes([value & 127 | 128]) + _varint(head) if head else bytes([value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """Encode one field of a protocol buffer message: a whole number, a text or a message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


# The field numbers are those of onnx.proto: ModelProto, NodeProto, AttributeProto and so on.


def _model(graph: bytes, metadata: Mapping[str, str]) -> bytes:
    opset = _field(1, "") + _field(2, 18)
    texts = [_field(1, key) + _field(2, value) for key, value in metadata.items()]
    properties = b"".join(_field(14, text) for text in texts)
    return _field(1, 9) + _field(7, graph) + _field(8, opset) + properties


def _node(kind: str, inputs: Sequence[str], output: str, attribute: bytes = b"") -> bytes:
    names = b"".join(_field(1, name) for name in inputs) + _field(2, output)
    return names + _field(4, kind) + (_field(5, attribute) if attribute else b"")


def _attribute(name: str, value: int) -> bytes:
    whole_number = 2
    return _field(1, name) + _field(3, value) + _field(20, whole_number)


def _tensor(name: str, kind: int, shape: Sequence[int], data: bytes) -> bytes:
    sizes = b"".join(_field(1, size) for size in shape)
    return sizes + _field(2, kind) + _field(8, name) + _field(9, data)


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    sizes = [_field(2 if isinstance(size, str) else 1, size) for size in shape]
    dimensions = b"".join(_field(1, size) for size in sizes)
    tensor = _field(1, kind) + _field(2, dimensions)
    return _field(1, name) + _field(2, _field(1, tensor))


@pytest.fixture
def model(write_model: WriteModel) -> Path:
    """A good model file: anomalous from a mean of 100 on."""
    return write_model()


def plain(value: int, size: tuple[int, int] = (48, 96)) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, dtype=np.uint8)


@pytest.fixture
def frames() -> Callable[..., list[NDArray[np.uint8]]]:
    """Make frames of one grey value each."""

    def make(*values: int, size: tuple[int, int] = (48, 96)) -> list[NDArray[np.uint8]]:
        return [plain(value, size) for value in values]

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of five pictures: grey values 0, 50, 100, 150, 200; the last two are anomalous."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for value in (0, 50, 99, 150, 200):
        cv2.imwrite(str(folder / f"{value:03}.png"), plain(value))
    return folder


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[[str, Sequence[int]], Path]:
    """Write a video whose frames have one grey value each; .avi or .mp4."""

    def write(name: str, values: Sequence[int]) -> Path:
        path = tmp_path / name
        code = "MJPG" if path.suffix == ".avi" else "mp4v"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 25, (96, 48))
        for value in values:
            writer.write(plain(value))
        writer.release()
        return path

    return write


PLUGIN = """
import itertools, time
import numpy as np
from edge_ad_runtime import FakeCamera

def frames():
    for number in itertools.count():
        time.sleep(0.001)
        yield np.full((48, 96, 3), number % 90, np.uint8)

def open_camera(text):
    return FakeCamera(frames(), name=text)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with an installed package that brings a quick camera, `quick:NAME`."""
    folder = tmp_path / "site"
    metadata = folder / "quick-1.dist-info"
    metadata.mkdir(parents=True)
    (folder / "quick.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: quick\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[edge_ad.sources]\nquick = quick:open_camera\n")
    return folder
