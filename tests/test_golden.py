"""What an earlier version wrote still works: run folders, model files, configurations."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad.models import load
from edge_ad_runtime import Scorer, read_frame

GOLDEN = Path(__file__).parent / "golden"
METHODS = ("padim", "patchcore", "spade")
SCORES = json.loads((GOLDEN / "scores.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_detector_scores_as_it_did(method: str) -> None:
    detector = load(GOLDEN / method)
    for name, expected in SCORES[method].items():
        score = detector.predict([read_frame(GOLDEN / f"{name}.png")])[0].score
        assert score == pytest.approx(expected["pytorch"], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_file_scores_and_decides_as_it_did(method: str) -> None:
    scorer = Scorer(GOLDEN / method / f"chip-{method}.onnx", device="cpu")
    assert scorer.info.threshold == pytest.approx(scorer.threshold)
    for name, expected in SCORES[method].items():
        result = scorer.score(read_frame(GOLDEN / f"{name}.png"))
        assert result.score == pytest.approx(expected["onnx"], rel=1e-3)
        assert result.anomalous == (expected["onnx"] >= scorer.info.threshold)


@pytest.mark.parametrize("method", METHODS)
def test_info_reads_a_model_file(method: str) -> None:
    result = CliRunner().invoke(main, ["info", str(GOLDEN / method / f"chip-{method}.onnx")])
    assert result.exit_code == 0, result.output
    assert method in result.output


def test_a_configuration_has_no_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cable.onnx", "ca.pem"):
        (tmp_path / name).touch()
    result = CliRunner().invoke(
        main,
        ["stream", "--check", "--config", os.fspath(GOLDEN / "line.toml")],
        env={"EDGE_AD_TOKEN": "t"},
    )
    assert result.exit_code == 0, result.output
