"""Golden frames in a model file: what a device must score as the workstation did."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import ModelInfo, Scorer
from edge_ad_runtime.errors import ModelFileError
from edge_ad_runtime.model.golden import GOLDEN_KEY, Golden

HEIGHT, WIDTH = 32, 64


def recorded(model: Path, tolerance: float = 2e-3) -> Golden:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return Golden.record(
        Scorer(model, device="cpu"), [noise, np.full_like(noise, 30)], tolerance=tolerance
    )


def test_a_file_scores_its_own_frames_and_another_one_does_not(
    write_model: Any, info: ModelInfo
) -> None:
    golden = recorded(write_model("plain.onnx"))
    metadata = info.to_metadata() | golden.to_metadata()
    scorer = Scorer(write_model("golden.onnx", metadata=metadata), device="cpu")
    assert scorer.golden == golden
    golden.check(scorer)
    close = Scorer(write_model("close.onnx", divisor=1.001), device="cpu")
    golden.check(close)
    other = Scorer(write_model("other.onnx", divisor=1.01), device="cpu")
    with pytest.raises(ModelFileError, match="golden frame 1 has the score"):
        golden.check(other)
    nothing = Scorer(write_model("nothing.onnx", divisor=float("nan")), device="cpu")
    with pytest.raises(ModelFileError, match="cannot be scored"):
        golden.check(nothing)


def test_a_file_without_frames_has_none(model: Path) -> None:
    assert Scorer(model, device="cpu").golden is None


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance": float("inf")},
        {"tolerance": -1},
        {"frames": []},
        {"frames": 3},
        {"frames": [3]},
        {"frames": [{}] * 9},
        {"frames": [{"picture": "%", "score": 1, "map_maximum": 1}]},
        {"frames": [{"picture": 5, "score": 1, "map_maximum": 1}]},
        {"frames": [{"picture": "", "score": "1", "map_maximum": 1}]},
        {"frames": [{"picture": "", "score": 1, "map_maximum": None}]},
    ],
)
def test_what_cannot_be_is_refused(
    write_model: Any, info: ModelInfo, model: Path, change: dict[str, object]
) -> None:
    document = json.loads(recorded(model).to_metadata()[GOLDEN_KEY]) | change
    metadata = info.to_metadata() | {GOLDEN_KEY: json.dumps(document)}
    with pytest.raises(ModelFileError, match=GOLDEN_KEY):
        Scorer(write_model("bad.onnx", metadata=metadata), device="cpu")


def test_a_picture_that_is_none_fails_the_check(write_model: Any, info: ModelInfo) -> None:
    frames = [{"picture": "AAAA", "score": 1, "map_maximum": 1}]
    text = json.dumps({"tolerance": 0.1, "frames": frames})
    scorer = Scorer(write_model(metadata=info.to_metadata() | {GOLDEN_KEY: text}), device="cpu")
    assert scorer.golden is not None
    with pytest.raises(ModelFileError, match="golden frame 1 cannot be scored"):
        scorer.golden.check(scorer)
