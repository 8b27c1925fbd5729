"""Bad model files for `bad_models`, made out of a good one, mostly with a valid signature."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from onnx import TensorProto, helper, numpy_helper

from edge_ad_runtime import Scorer, read_frame
from edge_ad_runtime.model.golden import GOLDEN_KEY, Golden
from edge_ad_runtime.model.info import BLANK, CHECKSUM_KEY, MODEL_KEY, VERSION_KEY, stamp
from edge_ad_runtime.model.signature import sign

GOLDEN_FILE = Path(__file__).parents[1] / "tests/golden/padim/chip-padim.onnx"
GOOD_PICTURE = GOLDEN_FILE.parents[1] / "good.png"

NEWER = 2_000
"""Signed version of what is offered; the model that runs has 1,000."""

Edit = Callable[[onnx.ModelProto, dict[str, str]], None]


def keys() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Workshop:
    """Makes bad model files out of a good one, mostly with a valid checksum and signature."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.private, self.public = keys()
        self.stranger, _ = keys()
        plain = Scorer(GOLDEN_FILE, device="cpu")
        frame = plain.prepare(read_frame(GOOD_PICTURE))
        self.golden = Golden.record(plain, [frame], 2e-3)
        self.good = self.built(lambda model, texts: None)
        self.kinds: dict[str, Callable[[Path], None]] = {
            "cut off": lambda path: self.damage(path, self.cut),
            "bits flipped": lambda path: self.damage(path, self.flip),
            "a stretch of zeros": lambda path: self.damage(path, self.zero),
            "bytes inserted": lambda path: self.damage(path, self.insert),
            "cut off, then signed": lambda path: self.put(path, self.cut(self.good)),
            "bits flipped, then signed": lambda path: self.put(path, self.flip(self.good)),
            "random bytes, signed": lambda path: self.put(path, self.random.randbytes(20_000)),
            "empty": lambda path: self.put(path, b""),
            "a folder": Path.mkdir,
            "not there": lambda path: None,
            "a pipe": os.mkfifo,
            "a link to itself": lambda path: path.symlink_to(path),
            "a picture": lambda path: self.put(path, (GOOD_PICTURE).read_bytes()),
            "no signature": lambda path: self.put(path, self.good, key=None),
            "signed by a stranger": lambda path: self.put(path, self.good, key=self.stranger),
            "another file's signature": self.other_signature,
            "a damaged signature": self.damaged_signature,
            "an older version": lambda path: self.put(
                path, self.good, version=self.random.randrange(1, 1000)
            ),
            "limit NaN": lambda path: self.edit(path, text(threshold=float("nan"))),
            "limit infinite": lambda path: self.edit(path, text(threshold=1e39)),
            "a newer format": lambda path: self.edit(
                path, lambda model, texts: texts.update({VERSION_KEY: "2"})
            ),
            "no metadata": lambda path: self.edit(path, lambda model, texts: texts.clear()),
            "another input size": lambda path: self.edit(path, text(input_size=[96, 96])),
            "another input name": lambda path: self.edit(path, rename_input),
            "no anomaly map": lambda path: self.edit(path, drop_map),
            "other golden scores": lambda path: self.edit(path, self.other_golden),
            "golden pictures damaged": lambda path: self.edit(path, self.damaged_golden),
            "weights scaled": lambda path: self.edit(path, self.weights(1.3)),
            "weights zero": lambda path: self.edit(path, self.weights(0.0)),
            "weights NaN": lambda path: self.edit(path, self.weights(float("nan"))),
            "weights NaN, no golden frames": lambda path: self.edit(
                path, self.weights(float("nan"), golden=False)
            ),
            "an operator that is unknown": lambda path: self.edit(path, unknown_operator),
            "terabytes of memory": lambda path: self.edit(path, hungry),
            "slow": lambda path: self.edit(path, slow),
            "another product": lambda path: self.edit(path, text(category="bottle")),
            "a limit that lets every part pass": lambda path: self.edit(path, text(threshold=1e6)),
        }

    def built(self, change: Edit) -> bytes:
        model = onnx.load(GOLDEN_FILE)
        texts = {item.key: item.value for item in model.metadata_props}
        document = json.loads(texts[MODEL_KEY]) | {"checksum": "sha256"}
        texts = self.golden.to_metadata() | texts | {MODEL_KEY: json.dumps(document)}
        texts |= {CHECKSUM_KEY: BLANK}
        change(model, texts)
        helper.set_model_props(model, texts)
        data: bytes = model.SerializeToString()
        return stamp(data) if CHECKSUM_KEY in texts else data

    def put(
        self, path: Path, data: bytes, key: bytes | None = b"ours", version: int = NEWER
    ) -> None:
        path.write_bytes(data)
        if key is not None:
            private = self.private if key == b"ours" else key
            path.with_name(path.name + ".sig").write_text(
                sign(data, path.name, private, version=version)
            )

    def edit(self, path: Path, change: Edit) -> None:
        self.put(path, self.built(change))

    def damage(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        self.put(path, self.good)
        path.write_bytes(change(self.good))

    def cut(self, data: bytes) -> bytes:
        return data[: self.random.randrange(len(data))]

    def flip(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 64))):
            changed[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(changed) if changed != data else self.flip(data)

    def zero(self, data: bytes) -> bytes:
        start, length = self.random.randrange(len(data)), self.random.randrange(1, 5000)
        changed = data[:start] + bytes(len(data[start : start + length])) + data[start + length :]
        return changed if changed != data else self.zero(data)

    def insert(self, data: bytes) -> bytes:
        start = self.random.randrange(len(data))
        return data[:start] + self.random.randbytes(self.random.randrange(1, 100)) + data[start:]

    def other_signature(self, path: Path) -> None:
        self.put(path, self.built(text(category="other")))
        path.write_bytes(self.good)

    def damaged_signature(self, path: Path) -> None:
        self.put(path, self.good)
        signature = path.with_name(path.name + ".sig")
        signature.write_bytes(self.cut(signature.read_bytes()))

    def other_golden(self, model: onnx.ModelProto, texts: dict[str, str]) -> None:
        document = json.loads(texts[GOLDEN_KEY])
        document["frames"][0][self.random.choice(("score", "map_maximum"))] *= 1.01
        texts[GOLDEN_KEY] = json.dumps(document)

    def damaged_golden(self, model: onnx.ModelProto, texts: dict[str, str]) -> None:
        document = json.loads(texts[GOLDEN_KEY])
        picture = document["frames"][0]["picture"]
        document["frames"][0]["picture"] = picture[: self.random.randrange(len(picture)) // 4 * 4]
        texts[GOLDEN_KEY] = json.dumps(document)

    def weights(self, factor: float, golden: bool = True) -> Edit:
        def change(model: onnx.ModelProto, texts: dict[str, str]) -> None:
            floats = [
                tensor
                for tensor in model.graph.initializer
                if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 200
            ]
            tensor = self.random.choice(floats)
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            if not golden:
                del texts[GOLDEN_KEY]

        return change


def text(**change: object) -> Edit:
    def edit(model: onnx.ModelProto, texts: dict[str, str]) -> None:
        texts[MODEL_KEY] = json.dumps(json.loads(texts[MODEL_KEY]) | change)

    return edit


def rename_input(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    model.graph.input[0].name = "image"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "frame":
                node.input[index] = "image"


def drop_map(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    kept = [item for item in model.graph.output if item.name != "anomaly_map"]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def before_score(model: onnx.ModelProto, nodes: list[onnx.NodeProto], last: str) -> None:
    """Compute something more, and add nothing of it to the score."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "score":
                node.output[index] = "plain_score"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    model.graph.node.extend(
        [
            *nodes,
            helper.make_node("ReduceMax", [last], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "nothing"], ["none"]),
            helper.make_node("Add", ["plain_score", "none"], ["score"]),
        ]
    )


def unknown_operator(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    before_score(model, [helper.make_node("Frobnicate", ["plain_score"], ["odd"])], "odd")


def hungry(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "hungry_shape")
    model.graph.initializer.append(shape)
    node = helper.make_node("Expand", ["nothing", "hungry_shape"], ["hungry"])
    before_score(model, [node], "hungry")


def slow(model: onnx.ModelProto, texts: dict[str, str]) -> None:
    """Two thousand million multiplications that depend on the frame, so that none is folded."""
    shape = numpy_helper.from_array(np.array([1300, 1300], np.int64), "slow_shape")
    model.graph.initializer.append(shape)
    nodes = [
        helper.make_node("ReduceMax", ["plain_score"], ["slow_seed"], keepdims=0),
        helper.make_node("Expand", ["slow_seed", "slow_shape"], ["slow_0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"slow_{index}", "slow_0"], [f"slow_{index + 1}"])
        for index in range(12)
    ]
    nodes.append(helper.make_node("Clip", ["slow_12", "nothing", "nothing"], ["slow"]))
    before_score(model, nodes, "slow")
