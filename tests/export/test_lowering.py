"""Every way of lowering, for every detector, against PyTorch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from edge_ad.data import Dataset
from edge_ad.models import SPADE, Detector, Fusion, PaDiM, PatchCore
from edge_ad_export.build import build_graph, has_integer_form
from edge_ad_export.recipe import Recipe, choose_recipes
from edge_ad_export.torch_export import OPSET
from edge_ad_runtime.errors import ExportError
from edge_ad_runtime.model.picture_file import list_pictures, read_frame

pytestmark = pytest.mark.slow

INT8 = Recipe("cpu", "int8")
PORTABLE = Recipe("portable", "fp32")

LITE, RESNET, WIDE = "efficientnet_lite0", "resnet18", "wide_resnet50_2"


def create(method: type[Detector], size: tuple[int, int], backbone: str = LITE) -> Detector:
    if method is SPADE:  # one stretch of the plain graph for each retrieved picture
        return SPADE(backbone=backbone, weights="none", input_size=size, k=3)
    if method is PaDiM:
        return PaDiM(backbone=backbone, weights="none", input_size=size)
    if method is Fusion:
        return Fusion(backbone=backbone, weights="none", input_size=size, coreset=0.1)
    return PatchCore(backbone=backbone, weights="none", input_size=size)


def fitted(detector: Detector, data_root: Path) -> Detector:
    return detector.fit(Dataset.from_folder(data_root / "plate/train/good"))


def frames_of(detector: Detector, data_root: Path, count: int) -> NDArray[np.uint8]:
    paths = list_pictures(data_root / "plate/test")[:count]
    return np.stack([detector.preprocessing.apply(read_frame(path)) for path in paths])


def run(model: onnx.ModelProto, frames: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: list[NDArray[np.float32]] = session.run(["score", "anomaly_map"], {"frame": frames})
    return outputs


def assert_close(detector: Detector, model: onnx.ModelProto, data_root: Path, limit: float) -> None:
    """Batches of 1, 3 and 8 are within a limit relative to the largest value."""
    frames = frames_of(detector, data_root, 8)
    with torch.inference_mode():
        scores, maps = (part.numpy() for part in detector(torch.from_numpy(frames)))
    for batch in (1, 3, 8):
        score, anomaly_map = run(model, frames[:batch])
        np.testing.assert_allclose(score, scores[:batch], rtol=limit)
        assert np.abs(anomaly_map - maps[:batch]).max() <= limit * maps.max()


@pytest.mark.parametrize(
    ("method", "backbone", "size"),
    [
        (PaDiM, LITE, (64, 96)),
        (PatchCore, LITE, (64, 96)),
        (SPADE, LITE, (64, 96)),
        (Fusion, LITE, (64, 96)),
        (PaDiM, RESNET, (64, 64)),
        (PatchCore, RESNET, (64, 96)),
        (SPADE, RESNET, (64, 64)),
        (PaDiM, WIDE, (32, 64)),
    ],
)
def test_integers_and_floats_agree_with_pytorch_at_any_batch(
    method: type[Detector], backbone: str, size: tuple[int, int], data_root: Path
) -> None:
    detector = fitted(create(method, size, backbone), data_root)
    if backbone != RESNET:
        assert_close(detector, build_graph(detector, PORTABLE), data_root, 1e-3)
    assert_close(detector, build_graph(detector, INT8), data_root, 0.05)


@pytest.fixture(scope="module")
def patchcore(data_root: Path) -> Detector:
    detector = PatchCore(weights="none", input_size=(64, 96), coreset=0.9)
    return fitted(detector, data_root)


def test_patchcore_searches_a_part_of_the_memory_and_keeps_the_score(
    patchcore: Detector, data_root: Path
) -> None:
    model = build_graph(patchcore, INT8)
    visited = next(node for node in model.graph.node if node.op_type == "TopK")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    (count,) = onnx.numpy_helper.to_array(constants[visited.input[1]])
    centres = next(t for name, t in constants.items() if ".centres_" in name)
    assert count < centres.dims[0]
    frames = frames_of(patchcore, data_root, 8)
    with torch.inference_mode():
        expected = patchcore(torch.from_numpy(frames))[0].numpy()
    np.testing.assert_allclose(run(model, frames)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("recipe", [INT8, PORTABLE], ids=["int8", "portable"])
def test_a_score_does_not_depend_on_the_rest_of_the_batch(
    recipe: Recipe, patchcore: Detector, data_root: Path
) -> None:
    frames = frames_of(patchcore, data_root, 4)
    frames[0] = 255  # large features beside ordinary ones
    model = build_graph(patchcore, recipe)
    together, alone = run(model, frames), run(model, frames[3:])
    np.testing.assert_allclose(together[0][3:], alone[0], rtol=1e-5)
    np.testing.assert_allclose(together[1][3:], alone[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [PaDiM, PatchCore, SPADE, Fusion])
@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_gpu_graphs_pass_the_operator_check_and_hold_a_half_backbone(
    method: type[Detector], target: str, data_root: Path
) -> None:
    detector = fitted(create(method, (64, 64)), data_root)
    model = build_graph(detector, choose_recipes(target)[0])
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in kinds
    # ONNX Runtime keeps these on the CPU.
    assert not {node.op_type for node in model.graph.node} & {"Shape", "Size"}
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_value == (1 if target == "tensorrt" else 0)
    assert next(iter(detector.backbone.parameters())).dtype == torch.float32


def test_spade_compares_a_full_gallery_in_floats(data_root: Path) -> None:
    detector = SPADE(weights="none", input_size=(64, 64), gallery_rule="full", k=3)
    assert not has_integer_form(detector)
    model = build_graph(fitted(detector, data_root), Recipe("cpu", "fp32"))
    assert_close(detector, model, data_root, 1e-3)
    with pytest.raises(ExportError, match="--precision fp32"):
        build_graph(detector, INT8)


@pytest.mark.parametrize(
    ("target", "precision"), [("portable", "int8"), ("cuda", "int8"), ("cpu", "fp16")]
)
def test_a_precision_that_a_target_lacks_is_refused(target: str, precision: str) -> None:
    with pytest.raises(ExportError, match="choose"):
        choose_recipes(target, precision)
