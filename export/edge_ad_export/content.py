"""What is inside a model file: operators by count, bytes by part."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import helper

MEMORY = ("memory", "gallery", "pooled", "neighbours", "centre")
STATISTICS = ("factor", "means", "whitening", "mean_whitened")


@dataclass(frozen=True)
class Content:
    """Operators by count, the most frequent first, and bytes of the constants of each part."""

    operators: dict[str, int]
    bytes_by_part: dict[str, int]


def read_content(path: Path) -> Content:
    """Look into a model file."""
    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node)
    parts = dict.fromkeys(("backbone", "memory", "statistics", "other"), 0)
    for tensor in graph.initializer:
        width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        parts[_part(tensor.name)] += prod(tensor.dims) * width
    return Content(operators=dict(operators.most_common()), bytes_by_part=parts)


def _part(name: str) -> str:
    """Tell by its name what a constant belongs to."""
    own = re.split("[/.]", name)[-1]  # early files have names with slashes
    if own.startswith(MEMORY):
        return "memory"
    if own.startswith(STATISTICS):
        return "statistics"
    if "network" in name or "backbone" in name:
        return "backbone"
    return "other"
