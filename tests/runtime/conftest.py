"""Tiny model files (score = mean of the frame, map = mean of its channels), pictures, videos."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edge_ad_runtime import CapturedFrame, ModelInfo, Result

HEIGHT, WIDTH = 32, 64
Metadata = dict[str, str]
WriteModel = Callable[..., Path]


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
        input_type: int = TensorProto.UINT8,
        map_name: str = "anomaly_map",
        divisor: float = 1.0,
    ) -> Path:
        shape = [batch, HEIGHT, WIDTH, 3]
        nodes = [
            helper.make_node("Cast", [input_name], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["values", "divisor"], ["pixels"]),
            helper.make_node("ReduceMean", ["pixels", "all"], ["score"], keepdims=0),
            helper.make_node("ReduceMean", ["pixels", "channel"], [map_name], keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(input_name, input_type, shape)],
            [
                helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]),
                helper.make_tensor_value_info(map_name, TensorProto.FLOAT, shape[:3]),
            ],
            [
                helper.make_tensor("all", TensorProto.INT64, [3], [1, 2, 3]),
                helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
                helper.make_tensor("divisor", TensorProto.FLOAT, [], [divisor]),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, make_info().to_metadata() if metadata is None else metadata)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


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
