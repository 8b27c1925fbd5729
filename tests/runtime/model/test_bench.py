"""Timing a model file, with and without its backbone."""

import json
from pathlib import Path

import numpy as np
import pytest

from edge_ad_runtime import ModelInfo
from edge_ad_runtime.errors import DataError, ModelFileError
from edge_ad_runtime.model.bench import backbone_file, benchmark

onnx = pytest.importorskip("onnx", reason="no onnx to build a graph: pip install 'edge-ad[train]'")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto

SIZE = (32, 64)


def write_model(path: Path) -> Path:
    """A model file with the promised inputs and outputs, and no sense."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "last"], ["anomaly_map"], keepdims=0),
        helper.make_node("ReduceMax", ["anomaly_map", "both"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["batch", *SIZE, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["batch", *SIZE]),
        ],
        [
            numpy_helper.from_array(np.array([3]), "last"),
            numpy_helper.from_array(np.array([1, 2]), "both"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    info = ModelInfo(
        method="padim",
        category="plate",
        backbone="none",
        input_size=SIZE,
        threshold=1.0,
        threshold_rule="drawn",
        false_alarm_rate=0.01,
        score_range=(0.0, 1.0),
        map_range=(0.0, 1.0),
        map_threshold=1.0,
        created_at="2026-01-01T00:00:00+00:00",
    )
    helper.set_model_props(model, info.to_metadata())
    path.write_bytes(model.SerializeToString())
    return path


def write_backbone(path: Path, name: str) -> None:
    value = [1, 3, *SIZE]
    graph = helper.make_graph(
        [helper.make_node("Relu", [name], ["map"])],
        "backbone",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, value)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)


def test_without_the_backbone_there_is_no_ratio(tmp_path: Path) -> None:
    result = benchmark(write_model(tmp_path / "m.onnx"), device="cpu", threads=1, frames=3)
    assert (result.provider, result.threads) == ("CPUExecutionProvider", 1)
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p95"] <= result.latency_ms["p99"]
    assert result.frames_per_second == pytest.approx(1000 / result.latency_ms["p50"])
    assert result.backbone_latency_ms is None
    assert result.ratio_to_backbone is None
    assert result.memory_mb is None or result.memory_mb > 10


def test_with_the_backbone_there_is_a_ratio(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    write_backbone(backbone_file(path), "image")
    result = benchmark(path, device="cpu", threads=1, frames=3)
    assert result.backbone_latency_ms is not None
    assert result.ratio_to_backbone == pytest.approx(
        result.parts_ms["inference"] / result.backbone_latency_ms
    )


def test_another_file_in_its_place_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    write_backbone(backbone_file(path), "input")
    with pytest.raises(ModelFileError, match="--with-backbone"):
        benchmark(path, device="cpu", frames=1)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1"):
        benchmark(write_model(tmp_path / "m.onnx"), frames=0)


def test_the_command_prints_the_promised_names(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edge_ad.cli import main

    path = write_model(tmp_path / "m.onnx")
    arguments = ["bench", str(path), "--device", "cpu", "--frames", "2"]
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    promised = {"device", "provider", "threads", "batch", "latency_ms", "frames_per_second"}
    promised |= {"backbone_latency_ms", "ratio_to_backbone", "versions"}
    assert promised <= set(document)
    assert (document["batch"], document["spinning"]) == (1, False)
    assert "frames/s" in CliRunner().invoke(main, arguments).stdout
