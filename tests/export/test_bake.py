"""The resize inside the graph is the device's own."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edge_ad.cli import main
from edge_ad.data import load_category
from edge_ad.models import PaDiM
from edge_ad.train import train
from edge_ad_export.passes.resize import bake_resize
from edge_ad_export.recipe import choose_recipes
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ExportError
from edge_ad_runtime.model.image import Preprocessing
from edge_ad_runtime.model.picture_file import list_pictures, read_frame

INPUT_SIZE = (64, 96)


def resizing_session(preprocessing: Preprocessing) -> onnxruntime.InferenceSession:
    """A graph that hands its resized frame on as floats."""
    shape: list[str | int | None] = ["batch", *preprocessing.input_size, 3]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["frame"], ["score"], to=TensorProto.FLOAT)],
        "floats",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content = bake_resize(model, preprocessing).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(input_size=INPUT_SIZE),
        Preprocessing(input_size=INPUT_SIZE, resize=112),
    ],
    ids=["whole", "cropped"],
)
def test_it_gives_the_pixels_that_the_device_resizes_to(preprocessing: Preprocessing) -> None:
    session = resizing_session(preprocessing)
    sizes = [
        (64, 96),
        (128, 192),
        (200, 301),
        (97, 640),
        (480, 97),
        (40, 50),
        (50, 300),
        (900, 900),
    ]
    for size in sizes:
        frames = noise(*size)
        expected = np.stack([preprocessing.apply(frame) for frame in frames])
        got = session.run(None, {"frame": frames})[0]
        # One grey level: OpenCV interpolates in fixed point.
        assert np.abs(got - expected).max() <= 1, size
        assert np.abs(got - expected).mean() < 0.15, size
        alone = session.run(None, {"frame": frames[:1]})[0]
        np.testing.assert_array_equal(alone, got[:1])


@pytest.mark.slow
def test_the_file_takes_frames_of_any_size_and_of_several(data_root: Path, tmp_path: Path) -> None:
    detector = PaDiM(weights="none", input_size=INPUT_SIZE)
    run = train(detector, load_category("plate", data_root), tmp_path).folder
    arguments = ["export", str(run), "--target", "portable", "--bake-resize"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    scorer = Scorer(run / "plate-padim.onnx", device="cpu")
    assert scorer.info.resize_in_graph
    assert scorer.info.parity["score_difference"] < 0.05
    frames = [read_frame(path) for path in list_pictures(data_root / "plate/test")[:3]]
    frames[1] = np.ascontiguousarray(frames[1][:, :-7])
    with torch.inference_mode():
        expected = detector.predict(frames)
    for prediction, found in zip(expected, scorer.score_batch(frames), strict=True):
        assert found.score == pytest.approx(prediction.score, rel=0.05)
        assert found.anomaly_map.shape == INPUT_SIZE


def test_tensorrt_cannot_have_it() -> None:
    with pytest.raises(ExportError, match="without --bake-resize"):
        choose_recipes("tensorrt", bake_resize=True)
