"""The golden pictures and scores that every client reproduces; see docs/model-file.md."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
GOLDEN = ROOT / "tests/golden"
FRAMES = GOLDEN / "clients"


@dataclass(frozen=True)
class Case:
    """A model file, and what it says about pictures.

    Attributes:
        model: the file.
        scores: by picture, at least its score.
        threshold: decision limit of the file.
    """

    model: Path
    scores: dict[Path, dict[str, Any]]
    threshold: float

    def check(self, verdicts: Iterable[dict[str, Any]]) -> None:
        """Compare what a client said, in the order of the pictures."""
        for (picture, expected), got in zip(self.scores.items(), verdicts, strict=True):
            where = f"{self.model.name}, {picture.name}"
            assert got["score"] == pytest.approx(expected["score"], rel=1e-3), where
            assert got["anomalous"] == (expected["score"] >= self.threshold), where
            if "map_maximum" in expected and "map_maximum" in got:
                assert got["map_maximum"] == pytest.approx(expected["map_maximum"], rel=1e-3), where
                row, column = expected["map_maximum_at"]
                assert abs(got["map_maximum_at"][0] - row) <= 2, where
                assert abs(got["map_maximum_at"][1] - column) <= 2, where


def _cases() -> list[Case]:
    first = json.loads((GOLDEN / "scores.json").read_text())
    cases = []
    for name, file in json.loads((FRAMES / "golden.json").read_text())["scores"].items():
        model = (FRAMES / name).resolve()
        scores = {FRAMES / "frames" / frame: said for frame, said in file["frames"].items()}
        scores |= {
            GOLDEN / f"{picture}.png": {"score": said["onnx"]}
            for picture, said in first.get(model.parent.name, {}).items()
        }
        cases.append(Case(model, scores, file["threshold"]))
    return cases


CASES = _cases()

each_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.model.stem)
"""Runs a test with one model file after the other."""
