"""The run folder: what is written comes back, old ones are read, damaged ones give a sentence."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_ad.data import Sample, ScoredSample
from edge_ad.run_metrics import RunMetrics
from edge_ad.runs import GoodPicture, Run, all_models, all_runs, model_file
from edge_ad.train import stale_exports
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.calibration import calibrate

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in `tmp_path`, not written yet."""
    scores = [1.0, 2.0, 2.5, 3.0, 3.5]
    metrics = Run.read(GOLDEN / "padim").metrics
    return Run(
        folder=tmp_path,
        metrics=replace(metrics, calibration=calibrate(scores, scores), format_version=2),
        scored=(
            ScoredSample(Sample(path=tmp_path / 'a, "1"\n.png'), 1.25),
            ScoredSample(
                Sample(path=tmp_path / "b.png", label="cut", mask_path=tmp_path / "m.png"), 9.0
            ),
            ScoredSample(Sample(path=tmp_path / "\udcff.png", label="cut"), 0.1 + 0.2),
        ),
        good=tuple(
            GoodPicture(
                path=tmp_path / f"{score}.png",
                score=score,
                map_min=0.0,
                map_max=score,
                set_aside=score > 3,
            )
            for score in scores
        ),
        good_maps={4: np.arange(6, dtype=np.float32)},
    )


def test_what_is_written_comes_back(run: Run) -> None:
    run.write()
    again = Run.read(run.folder)
    assert again == run
    np.testing.assert_array_equal(again.good_maps[4], run.good_maps[4])


@pytest.mark.parametrize("method", ["padim", "patchcore", "spade"])
def test_a_run_of_the_first_format_is_read(method: str) -> None:
    run = Run.read(GOLDEN / method)
    assert (run.metrics.method, run.metrics.category) == (method, "chip")
    assert run.metrics.format_version == 1 and run.metrics.calibration is None
    assert len(run.scored) == run.metrics.n_test_good + run.metrics.n_test_anomalous
    assert len(run.held_out) == 2 and not run.good


def test_masks_of_the_first_format_are_found_where_mvtec_has_them(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "padim", tmp_path / "run")
    mask = tmp_path / "chip/ground_truth/scratch/000_mask.png"
    mask.parent.mkdir(parents=True)
    mask.touch()
    picture = tmp_path / "chip/test/scratch/000.png"
    (tmp_path / "run/scores.csv").write_text(
        f"path,label,score,verdict\n{picture},scratch,5,good\n{picture},good,5,good\n"
    )
    defective, good = Run.read(tmp_path / "run").scored
    assert defective.sample.mask_path == mask and good.sample.mask_path is None


def test_a_run_of_a_later_version_is_refused(run: Run) -> None:
    run.write()
    document = json.loads((run.folder / "metrics.json").read_text()) | {"format_version": 3}
    (run.folder / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"format 3.*update"):
        Run.read(run.folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", "4"),
        ("threshold", 1e999),
        ("input_size", [64]),
        ("layers", 3),
        ("n_train", -1),
        ("n_train", True),
        ("image_auroc", 2),
        ("false_alarm_rate", None),
        ("versions", []),
        ("format_version", "x"),
        ("calibration", {"n": 3}),
        ("method", {}),
    ],
)
def test_a_figure_that_cannot_be_is_named(run: Run, name: str, value: object) -> None:
    document = run.metrics.to_json() | {name: value}
    with pytest.raises(DataError, match=r"metrics\.json is damaged"):
        RunMetrics.from_json(json.dumps(document), Path("metrics.json"))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("scores.csv", "/a.png,good,nan,good,"),
        ("scores.csv", "/a.png,good"),
        ("scores.csv", ",good,1,good,"),
        ("scores.csv", "/a.png,,1,good,"),
        ("scores.csv", "/a\0.png,good,1,good,"),
        ("good_scores.csv", "/a.png,1,1,1,maybe"),
        ("good_scores.csv", "/a.png,1,-1,1,0"),
        ("good_scores.csv", "/a.png,1,1"),
    ],
)
def test_a_row_that_cannot_be_is_named(run: Run, name: str, row: str) -> None:
    run.write()
    path = run.folder / name
    path.write_bytes(path.read_bytes().splitlines()[0] + f"\n{row}\n".encode())
    with pytest.raises(DataError, match=rf"row 2 of .*{name} is damaged"):
        Run.read(run.folder)


def test_mutated_files_are_read_or_refused_and_nothing_else(run: Run) -> None:
    run.write()
    rng = random.Random(0)
    originals = {path: path.read_bytes() for path in run.folder.iterdir()}
    refused = 0
    for _ in range(600):
        path = rng.choice(list(originals))
        data = bytearray(originals[path])
        for _ in range(rng.randint(1, 6)):
            start = rng.randrange(len(data) + 1)
            stop = min(start + rng.choice([0, 1, 1, 8, 60]), len(data))
            data[start:stop] = rng.choice(
                [
                    b"",
                    b"\0",
                    b"\xff",
                    b'"',
                    b",",
                    b"\n",
                    b"-",
                    b"9" * 400,
                    b"[" * 2000,
                    b"NaN",
                    b"\r",
                ]
            )
        path.write_bytes(data)
        try:
            Run.read(run.folder)
        except DataError as error:
            refused += 1
            assert len(str(error)) < 2000
        path.write_bytes(originals[path])
    assert refused > 100


@pytest.mark.parametrize(
    "name", ["metrics.json", "scores.csv", "good_scores.csv", "good_maps.safetensors"]
)
def test_a_folder_in_place_of_a_file(run: Run, name: str) -> None:
    run.write()
    (run.folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        Run.read(run.folder)
    (run.folder / name).mkdir()
    with pytest.raises(DataError, match="cannot read"):
        Run.read(run.folder)


def test_the_model_file_of_a_relative_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cable/padim").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cable/padim")
    assert model_file(Path()) == Path("cable-padim.onnx")


def test_runs_are_listed_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, method in enumerate(("spade", "padim")):
        (tmp_path / "cable" / method).mkdir(parents=True)
        path = tmp_path / "cable" / method / "detector.json"
        path.touch()
        os.utime(path, (age, age))
    assert [path.name for path in all_runs(tmp_path)] == ["padim", "spade"]
    assert all_runs(tmp_path / "nowhere") == []
    found = [path / "detector.json" for path in all_runs(tmp_path)]
    gone = tmp_path / "cable" / "gone" / "detector.json"  # deleted after it was listed
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone, *found]))
    assert [path.name for path in all_runs(tmp_path)] == ["padim", "spade"]


def test_a_bare_backbone_is_no_model_file(tmp_path: Path) -> None:
    """`edge-ad stream` without --model would take it: it is written last."""
    run = tmp_path / "cable/padim"
    run.mkdir(parents=True)
    for age, name in enumerate(("cable-padim", "other", "cable-padim-backbone")):
        (run / f"{name}.onnx").touch()
        os.utime(run / f"{name}.onnx", (age, age))
    assert [path.name for path in all_models(tmp_path)] == ["other.onnx", "cable-padim.onnx"]


def test_what_lies_beside_the_file_of_a_class_in_brackets_is_stale_too(tmp_path: Path) -> None:
    names = ["[x]-padim.onnx", "[x]-padim.onnx.calibration.json"]
    for name in (*names, "[x]-padim.onnx.old"):
        (tmp_path / name).touch()
    assert [path.name for path in stale_exports(tmp_path)] == names
