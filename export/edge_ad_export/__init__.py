"""From a fitted detector to one ONNX file, proven equal on real pictures before it is in place."""

import os
import platform
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from edge_ad import __version__
from edge_ad.models import load
from edge_ad.runs import model_file
from edge_ad_export.graph import build_graph
from edge_ad_export.parity import Parity, compare
from edge_ad_export.run import RunRecord, read_run
from edge_ad_runtime import ModelInfo, Scorer
from edge_ad_runtime.errors import ExportError

__all__ = ["Exported", "export"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model file in place: its path, its size in bytes and the figures of the proof."""

    path: Path
    size_bytes: int
    parity: Parity


def export(run: Path, output: Path | None = None) -> Exported:
    """Write the model file of a run; an older one stays until the new one is proven.

    Args:
        run: folder written by `edge-ad train`.
        output: where to write; None: `<category>-<method>.onnx` in the run folder.

    Raises:
        DataError: the run, or the pictures for the proof, cannot be read.
        ExportError: the graph cannot be built or written, or scores differently from PyTorch.
    """
    output = output or model_file(run)
    record = read_run(run)
    detector = load(run, device="cpu")
    model = build_graph(detector)
    info = _describe(record, detector.preprocessing.resize)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
            temporary = Path(folder) / output.name
            _write(model, info, temporary)
            parity = compare(detector, Scorer(temporary, device="cpu"), record.pictures)
            parity.check()
            _write(model, replace(info, parity=asdict(parity)), temporary)
            os.replace(temporary, output)
    except OSError as error:
        raise ExportError(
            f"cannot write {output} ({error.strerror}): choose another --output"
        ) from error
    return Exported(path=output, size_bytes=output.stat().st_size, parity=parity)


def _write(model: onnx.ModelProto, info: ModelInfo, path: Path) -> None:
    onnx.helper.set_model_props(model, info.to_metadata())
    path.write_bytes(model.SerializeToString())


def _describe(record: RunRecord, resize: int | None) -> ModelInfo:
    metrics = record.metrics
    figures = (
        "image_auroc",
        "image_ap",
        "image_f1",
        "pixel_auroc",
        "pixel_pro",
        "test_false_alarm_rate",
        "test_miss_rate",
        "n_test_good",
        "n_test_anomalous",
    )
    return ModelInfo(
        method=metrics["method"],
        category=metrics["category"],
        backbone=metrics["backbone"],
        input_size=tuple(metrics["input_size"]),
        resize=resize,
        threshold=metrics["threshold"],
        threshold_rule=metrics["threshold_rule"],
        false_alarm_rate=metrics["false_alarm_rate"],
        score_range=tuple(metrics["score_range"]),
        map_range=tuple(metrics["map_range"]),
        map_threshold=metrics["map_threshold"],
        training={name: metrics[name] for name in ("n_train", "n_skipped", "content_hash", "seed")},
        metrics={name: metrics[name] for name in figures},
        versions=_versions(),
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    return {
        "edge-ad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
