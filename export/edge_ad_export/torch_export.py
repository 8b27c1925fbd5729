"""PyTorch modules as ONNX graphs, by `torch.onnx`; everything else is appended to such a graph."""

import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn

from edge_ad.models import Detector
from edge_ad_runtime.errors import ExportError

OPSET = 18
"""The newest opset for which ONNX Runtime 1.23 (JetPack 6) has all the CUDA kernels."""

MAX_BYTES = 2**31 - 1
"""One protobuf cannot be larger, and a model file is one protobuf without external data."""

FRAME = "frame"


def module_graph(
    module: nn.Module,
    example: torch.Tensor,
    *,
    input_name: str = FRAME,
    outputs: Sequence[str] = ("score", "anomaly_map"),
    any_size: bool = False,
) -> onnx.ModelProto:
    """Return the graph of a module's `forward`.

    Args:
        module: takes one tensor and returns one tensor for each name in `outputs`.
        example: an input; with 1 along its first axis the graph takes batches of 1 only, with
            more it takes any.
        input_name: of the tensor it takes.
        outputs: names of the tensors it returns.
        any_size: the graph takes any batch, height and width, axes 0, 1 and 2.

    Raises:
        ExportError: PyTorch wrote no graph, or one of another opset.
    """
    axes = {} if len(example) == 1 else {0: torch.export.Dim("batch")}
    if any_size:
        # Up to PyTorch 2.9 its products decide that a size is not 1; the graph holds for 1 as well.
        names = ("batch", "height", "width")
        axes = {axis: torch.export.Dim(name, min=2) for axis, name in enumerate(names)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=list(outputs),
            dynamic_shapes=(axes or None,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("PyTorch's exporter returned no graph: update torch and onnxscript")
    model = program.model_proto
    opsets = {item.domain: item.version for item in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(f"expected a graph of opset {OPSET} alone, PyTorch wrote {opsets}")
    return model


def example_frames(detector: Detector, *, batch: int = 2) -> torch.Tensor:
    """Return black frames (batch, h, w, 3); a batch of 1 would be taken for a constant."""
    return torch.zeros(batch, *detector.preprocessing.input_size, 3, dtype=torch.uint8)


def check_size(detector: Detector) -> None:
    """Refuse what cannot be one file, before anything is built.

    Raises:
        ExportError: names the options that shrink it.
    """
    size = sum(tensor.nbytes for tensor in detector.state_dict().values())
    if size > MAX_BYTES:
        raise ExportError(
            f"the detector holds {size / 2**30:.1f} GiB and one ONNX file at most 2 GiB: "
            "train it with fewer --dims, a coarser --grid-stride or a smaller --input-size"
        )


def check_graph(model: onnx.ModelProto) -> None:
    """Refuse a graph that is not valid or would not be one file.

    Raises:
        ExportError: says which.
    """
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            f"the graph takes {model.ByteSize() / 2**30:.1f} GiB and one ONNX file at most 2 GiB: "
            "train with fewer --dims, a smaller --coreset, a coarser --grid-stride or a smaller "
            "--input-size"
        )
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ExportError("PyTorch wrote weights outside of the graph: update torch and onnxscript")
    onnx.checker.check_model(model, full_check=True)
