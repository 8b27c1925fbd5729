"""A fitted detector as one ONNX graph, by `torch.onnx` of its `forward`."""

import logging
import warnings

import onnx
import torch

from edge_ad.models import Detector
from edge_ad_runtime.errors import ExportError

OPSET = 18
"""The newest opset for which ONNX Runtime 1.23 (JetPack 6) has all the CUDA kernels."""

MAX_BYTES = 2**31 - 1
"""One protobuf cannot be larger, and a model file is one protobuf without external data."""


def build_graph(detector: Detector) -> onnx.ModelProto:
    """Return the graph: `frame` uint8 (N, h, w, 3) BGR -> `score` (N,), `anomaly_map` (N, h, w).

    Raises:
        ExportError: the graph would be larger than one file can be, or is not valid.
    """
    _check_size(detector)
    height, width = detector.preprocessing.input_size
    # Batch 2: a 1 would be taken for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    detector = detector.cpu().eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            detector,
            (example,),
            input_names=["frame"],
            output_names=["score", "anomaly_map"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("PyTorch's exporter returned no graph: update torch and onnxscript")
    model = program.model_proto
    _check_graph(model)
    return model


def _check_size(detector: Detector) -> None:
    size = sum(tensor.nbytes for tensor in detector.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(
            f"the detector holds {size / 2**30:.1f} GiB and one ONNX file at most 2 GiB: "
            "train it with fewer --dims, a coarser --grid-stride or a smaller --input-size"
        )


def _check_graph(model: onnx.ModelProto) -> None:
    opsets = {item.domain: item.version for item in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"expected a graph of opset {OPSET} alone, PyTorch wrote {opsets}")
    onnx.checker.check_model(model, full_check=True)
