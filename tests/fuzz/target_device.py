"""What a device reads beside a model: golden frames, versions, limits, requests, triggers."""

import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ModelFileError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.accepted import AcceptedVersions
from edge_ad_runtime.model.device_calibration import (
    DeviceCalibration,
    combine,
    digest_of,
    read_calibrations,
    write_calibration,
)
from edge_ad_runtime.model.document import Document
from edge_ad_runtime.model.golden import Golden
from edge_ad_runtime.model.location import calibration_path
from edge_ad_runtime.outputs.base import event_fields
from edge_ad_runtime.stream.installs import Installs
from edge_ad_runtime.stream.model_file import ModelFile
from edge_ad_runtime.stream.thresholds import Thresholds
from edge_ad_runtime.stream.triggers import Triggers, accept
from tests.fuzz.harness import ROOT, Target, mutate_bytes

Input = tuple[str, bytes]

_ODD: tuple[object, ...] = (
    *(None, True, -1, 0, 1, 0.5, 10**400, 1e308, float("nan"), float("inf"), 2**63),
    *("", "x", "\0", "\ud800", "a\nb", "a" * 70_000, "nothing", "tell", "try", "take over"),
    *([], [[]], [1], {}, {"a": 1}, [{}], "iVBORw0KGgo=", "-_", "="),
)


class Fuzz(Target[Input]):
    """Each input is the kind of a document, and its bytes."""

    def seeds(self, folder: Path) -> Sequence[Input]:
        """Return a good document of each kind."""
        self._model = folder / "model.onnx"
        self._model.write_bytes(next(ROOT.glob("tests/golden/padim/*.onnx")).read_bytes())
        self._scorer = Scorer(self._model, device="cpu", threads=1)
        self._digest = digest_of(self._model)
        models = [ModelFile(self._model, device="cpu", threads=1, threshold=None)]
        self._slots = {"left": models[0].slot}
        self._installs = Installs(models, lambda: None, _write)
        self._triggers = Triggers(["left", "right"], _write, timeout=0.0)
        frame = np.random.default_rng(0).integers(0, 256, (*self._scorer.info.input_size, 3))
        golden = Golden.record(self._scorer, [frame.astype(np.uint8)] * 2, 0.01)
        limits = DeviceCalibration(
            camera="left",
            created_at="2026-01-02T03:04:05Z",
            n_device=3,
            calibration=combine(None, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], rate=0.01),
        )
        written = write_calibration(self._model, self._digest, limits).read_bytes()
        state = folder / "state.json"
        Thresholds(self._slots, state, _write).set("left", 7.0, "somebody")
        accepted = {"version": 1, "accepted": {str(self._model): 5, "/b.onnx": 2**40}}
        request: dict[str, object] = {
            "ask": "try",
            "model": str(self._model),
            "candidate": str(self._model),
        }
        request |= {"parts": 1, "most_changed": 0.1, "max_latency_ms": 1.0, "timeout": 0.0}
        takeover = {"ask": "take over", "model": str(self._model), "content": self._digest}
        return [
            ("golden", next(iter(golden.to_metadata().values())).encode()),
            ("limits", written),
            ("accepted", json.dumps(accepted).encode()),
            ("state", state.read_bytes()),
            ("trigger", b'{"id": "a", "camera": "left"}'),
            ("request", json.dumps(request).encode()),
            ("request", json.dumps(takeover).encode()),
        ]

    def mutate(self, rng: random.Random, seed: Input) -> Input:
        """Replace entries, put other pictures in, or damage bytes."""
        kind, data = seed
        if rng.random() < 0.3:
            return kind, mutate_bytes(rng, data)
        if rng.random() < 0.02:
            return kind, rng.choice((b"[", b'{"a":')) * 60_000
        document = json.loads(data)
        for _ in range(rng.choice((1, 1, 2))):
            _replace(rng, document)
        return kind, json.dumps(document).encode()

    def run(self, data: Input, folder: Path) -> None:
        """Read the document as a device does, and use it."""
        kind, content = data
        if kind == "golden":
            golden = Golden.from_metadata(content.decode(errors="replace"))
            golden.check(self._scorer)
        elif kind == "limits":
            calibration_path(self._model).write_bytes(content)
            for limits in read_calibrations(self._model, self._digest).values():
                self._scorer.with_calibration(limits)
        elif kind == "accepted":
            path = folder / "accepted.json"
            path.write_bytes(content)
            accepted = AcceptedVersions(path)
            accepted.accept(self._model, accepted.least(self._model) + 1)
        elif kind == "state":
            path = folder / "state.json"
            path.write_bytes(content)
            thresholds = Thresholds(self._slots, path, _write)
            thresholds.restore()
            thresholds.set("left", 7.0, "somebody")
        elif kind == "trigger":
            accept(self._triggers, content, report=_write)
        else:
            try:
                self._installs.answer(Document.parse(content.decode()), lambda: True)
            except (ValueError, RecursionError) as error:  # which the socket answers with
                raise ModelFileError("refused") from error


def _write(event: Event) -> None:
    """Report an event as every output does."""
    json.dumps(event_fields(event), allow_nan=False).encode()


def _replace(rng: random.Random, value: object) -> None:
    """Replace one entry somewhere in a document."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
            _replace(rng, inner)
        elif rng.random() < 0.15:
            del value[key]
        elif key == "picture" and rng.random() < 0.5:
            value[key] = _picture(rng)
        else:
            value[key] = rng.choice(_ODD)
    elif isinstance(value, list) and value:
        place = rng.randrange(len(value))
        inner = value[place]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            _replace(rng, inner)
        elif rng.random() < 0.2:
            value *= rng.choice((0, 5))
        else:
            value[place] = rng.choice(_ODD)


def _picture(rng: random.Random) -> str:
    """Return a picture of another size or kind, or one whose header lies about its size."""
    size = rng.choice(((1, 1), (7, 300), (3000, 3000)))
    data = cv2.imencode(rng.choice((".png", ".jpg", ".bmp")), np.zeros(size, np.uint8))[1].tobytes()
    if rng.random() < 0.5:
        data = data[:16] + rng.choice((b"\x7f\xff\xff\xff", bytes(4), b"\0\1\0\0")) * 2 + data[24:]
    return base64.urlsafe_b64encode(data).decode()
