"""Fuzz: model files without a checksum, which would end every attempt early."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edge_ad_runtime import Scorer
from edge_ad_runtime.model.info import MODEL_KEY, VERSION_KEY
from tests.fuzz.harness import ROOT, Target, mutate_bytes

LARGE = 1 << 40
ODD: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    float("nan"),
    "x",
    "",
    [],
    {},
    [[1]],
    "\ud800",
    10**400,
    [1, 2],
    ["a"],
)
VERSIONS = ("", "\u00b2", "9" * 5000, "-1", "1.0", "99")


class Fuzz(Target[bytes]):
    """Files of the first version, damaged byte by byte, entry by entry or node by node."""

    def seeds(self, folder: Path) -> Sequence[bytes]:
        """Return a model file of each detector."""
        return [path.read_bytes() for path in sorted(ROOT.glob("tests/golden/*/*.onnx"))]

    def mutate(self, rng: random.Random, seed: bytes) -> bytes:
        """Break the bytes, the metadata or the graph."""
        kind = rng.randrange(4)
        if kind == 0:
            return mutate_bytes(rng, seed)
        if kind == 1:  # the end holds inputs, outputs and metadata
            return seed[:-4000] + mutate_bytes(rng, seed[-4000:])
        model = onnx.load_from_string(seed)
        if kind == 2:
            _break_metadata(rng, model)
        else:
            _break_graph(rng, model.graph)
        changed: bytes = model.SerializeToString()
        return changed

    def run(self, data: bytes, folder: Path) -> None:
        """Read the file and score a frame."""
        path = folder / "model.onnx"
        path.write_bytes(data)
        frame = np.full((64, 64, 3), 99, np.uint8)
        Scorer(path, device="cpu", threads=1).score(frame)


def _break_metadata(rng: random.Random, model: onnx.ModelProto) -> None:
    entries = {item.key: item for item in model.metadata_props}
    if rng.random() < 0.1:
        entries[VERSION_KEY].value = rng.choice(VERSIONS)
        return
    document = json.loads(entries[MODEL_KEY].value)
    name = rng.choice(sorted(document))
    if rng.random() < 0.2:
        del document[name]
    else:
        document[name] = rng.choice(ODD)
    text = json.dumps(document)
    shortened = text[: rng.randrange(len(text))]
    entries[MODEL_KEY].value = rng.choice((text, text, text, shortened, "[" * 50_000))


def _break_graph(rng: random.Random, graph: onnx.GraphProto) -> None:
    node, tensor = rng.choice(graph.node), rng.choice(graph.initializer)
    value = rng.choice((*graph.input, *graph.output))
    kind = rng.randrange(6)
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1:
        tensor.dims[:] = [rng.choice((0, 1, 7, LARGE, -1)) for _ in range(rng.randrange(4))]
    elif kind == 2:
        node.op_type = rng.choice(("Relu", "Loop", "Unknown", "Cast", "Reshape", "If"))
    elif kind == 3:
        value.name = rng.choice(("", "x", "frame", "score"))
    elif kind == 4 and value.type.tensor_type.shape.dim:
        rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice((0, -1, 1, LARGE, 17))
    else:
        value.type.Clear()
