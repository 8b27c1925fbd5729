"""The exported file in another runtime than ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edge_ad.data import Dataset
from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore
from edge_ad_export.build import build_graph
from edge_ad_export.recipe import Recipe
from edge_ad_runtime.model.picture_file import list_pictures, read_frame

pytestmark = pytest.mark.slow

openvino = pytest.importorskip("openvino", reason="needs the package openvino")


@pytest.mark.parametrize("method", ["padim", "patchcore", "spade", "fusion"])
def test_openvino_scores_as_onnx_runtime(method: str, data_root: Path) -> None:
    kinds: dict[str, type[PaDiM | PatchCore | SPADE | Fusion]] = {
        "padim": PaDiM,
        "patchcore": PatchCore,
        "spade": SPADE,
        "fusion": Fusion,
    }
    detector: Detector = kinds[method](weights="none", input_size=(64, 96))
    detector.fit(Dataset.from_folder(data_root / "plate/train/good"))
    content = build_graph(detector, Recipe("cpu", "int8")).SerializeToString()
    paths = list_pictures(data_root / "plate/test")[:3]
    frames = np.stack([detector.preprocessing.apply(read_frame(path)) for path in paths])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    score, anomaly_map = session.run(["score", "anomaly_map"], {"frame": frames})
    core = openvino.Core()
    # Its own default on some CPUs is bfloat16.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    result = core.compile_model(core.read_model(content), "CPU", options)({"frame": frames})
    np.testing.assert_allclose(result["score"], score, rtol=1e-3)
    assert np.abs(result["anomaly_map"] - anomaly_map).max() <= 1e-2 * anomaly_map.max()
