"""The metadata of a model file: every entry is checked when the file is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad_runtime import ModelFileError, ModelInfo, Scorer
from edge_ad_runtime.model.calibration import calibrate
from edge_ad_runtime.model.info import (
    BLANK,
    CHECKSUM_KEY,
    MODEL_KEY,
    VERSION_KEY,
    stamp,
    target_of,
    verify,
)

MISSING = object()
NAN, INFINITY = float("nan"), float("inf")


def changed(info: ModelInfo, **entries: Any) -> dict[str, str]:
    """The metadata strings with some entries replaced, or removed where they are `MISSING`."""
    strings = info.to_metadata()
    document = {**json.loads(strings[MODEL_KEY]), **entries}
    kept = {name: value for name, value in document.items() if value is not MISSING}
    return strings | {MODEL_KEY: json.dumps(kept)}


def test_what_is_written_is_read(info: ModelInfo) -> None:
    scores = [float(score) for score in range(20)]
    full = replace(
        info,
        resize=72,
        training={"n_train": 22},
        versions={"numpy": "2.0"},
        calibration=calibrate(scores, scores),
    )
    assert ModelInfo.from_metadata(full.to_metadata()) == full


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("threshold", [NAN, INFINITY, -INFINITY, None, "9", [1], True, 1e39, 10**400, MISSING]),
        ("map_threshold", [NAN, INFINITY, None, "9", {}, MISSING]),
        ("false_alarm_rate", [NAN, -0.1, 1.1, None, "0.1", MISSING]),
        ("score_range", [None, 1, [], [1], [1, 2, 3], [2, 1], [NAN, 1], ["a", "b"], MISSING]),
        ("map_range", [None, "ab", [0, INFINITY], [None, None], MISSING]),
        ("input_size", [None, 256, [256], [31, 64], [64.0, 64.0], [0, 0], [1 << 40, 64], MISSING]),
        ("resize", ["64", [64], 63, 0, -1, 1 << 40, 64.5, True]),
        ("resize_in_graph", [None, 0, "no"]),
        ("method", [None, 1, ["padim"], "a\nb", "x" * 5000, "\ud800", MISSING]),
        ("category", [None, {}, "\x1b[2J", MISSING]),
        ("color_order", ["RGB", None, 3]),
        ("created_at", ["yesterday", None, 0, MISSING]),
        ("training", [1, "x", [], {"a": [[[[1]]]]}]),
        ("metrics", [[1], {"image_auroc": INFINITY}]),
        ("versions", ["1.0", {"numpy": 2}]),
        ("calibration", [[1], "loo", {"method": "loo"}, {"version": 99}]),
        ("checksum", ["sha256", 5, []]),
    ],
)
def test_an_entry_that_cannot_be_is_refused(info: ModelInfo, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ModelFileError) as caught:
            ModelInfo.from_metadata(changed(info, **{name: value}))
        message = str(caught.value)
        assert len(message) < 500 and message.isprintable(), value
        assert "again" in message or "update edge-ad" in message, value


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 100_000, '{"threshold": 1e999}', '{"a": ' * 900, "\x00"]
)
def test_a_document_that_is_none_is_refused(info: ModelInfo, text: str) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        ModelInfo.from_metadata(info.to_metadata() | {MODEL_KEY: text})


@pytest.mark.parametrize("text", ["", "one", "\u00b2", "-1", "1.0", "9" * 5000])
def test_a_version_that_is_no_number_is_refused(info: ModelInfo, text: str) -> None:
    with pytest.raises(ModelFileError, match="whole number"):
        ModelInfo.from_metadata(info.to_metadata() | {VERSION_KEY: text})


def test_a_threshold_that_is_no_number_never_reaches_a_verdict(
    write_model: Callable[..., Path], info: ModelInfo
) -> None:
    path = write_model(metadata=changed(info, threshold=NAN))
    with pytest.raises(ModelFileError, match="finite"):
        Scorer(path, device="cpu")


def test_the_checksum_covers_the_file(write_model: Callable[..., Path], info: ModelInfo) -> None:
    path = write_model(metadata=info.to_metadata(checksum=True))
    with pytest.raises(ModelFileError, match="checksum"):
        Scorer(path, device="cpu")  # still blank
    path.write_bytes(stamp(path.read_bytes()))
    checksum = Scorer(path, device="cpu").info.checksum
    assert checksum == verify(path.read_bytes()) != BLANK
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        path.write_bytes(flipped)
        with pytest.raises(ModelFileError):
            Scorer(path, device="cpu")


def test_the_target_stands_in_the_bytes(write_model: Callable[..., Path], info: ModelInfo) -> None:
    for target in ("cpu", "portable"):
        texts = replace(info, target=target, category='{"target": "x"}').to_metadata(checksum=True)
        assert target_of(write_model(metadata=texts | {"note": '{"a'}).read_bytes()) == target
    for text in ("{}", "", "nothing", '{"target": 1}', '{"a":' * 9000, '{"target"'):
        path = write_model(metadata={MODEL_KEY: text})
        assert target_of(path.read_bytes()) is None
    assert target_of(b"") is None


def test_a_file_of_an_early_version_has_no_checksum(model: Path) -> None:
    assert verify(model.read_bytes()) is None
    assert Scorer(model, device="cpu").info.checksum is None
    with pytest.raises(ModelFileError, match=CHECKSUM_KEY):
        stamp(model.read_bytes())


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, kind in (
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ModelFileError, match=f"it is {kind}"):
            Scorer(path)
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ModelFileError, match=r"3\.0 GiB"):
        Scorer(large)
