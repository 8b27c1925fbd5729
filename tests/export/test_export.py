"""The exported file against PyTorch, and what the exporter refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from torch import Tensor

from edge_ad.cli import main
from edge_ad.data import ScoredSample, load_category
from edge_ad.models import SPADE, PaDiM, load, saved
from edge_ad.runs import Run
from edge_ad.train import train
from edge_ad_export import ExportOptions, export, exporter
from edge_ad_export.parity import Parity
from edge_ad_export.proof import ProofPictures, compare
from edge_ad_export.torch_export import OPSET
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import DataError, ExportError
from edge_ad_runtime.files import locked
from edge_ad_runtime.model.picture_file import list_pictures, read_frame


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with its exported file, exact."""
    category = load_category("plate", data_root)
    detector = PaDiM(weights="none", input_size=(64, 96), layers=["stage2", "stage3"])
    folder = train(detector, category, tmp_path_factory.mktemp("results")).folder
    export(folder, options=ExportOptions(target="portable"))
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "plate" / "padim"))


def test_one_file_with_the_promised_contract(run: Path) -> None:
    path = run / "plate-padim.onnx"
    model = onnx.load(path, load_external_data=False)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (frame,) = session.get_inputs()
    assert (frame.name, frame.type, frame.shape[1:]) == ("frame", "tensor(uint8)", [64, 96, 3])
    assert isinstance(frame.shape[0], str)
    score, anomaly_map = session.get_outputs()
    assert (score.name, score.type) == ("score", "tensor(float)")
    assert (anomaly_map.name, anomaly_map.shape[1:]) == ("anomaly_map", [64, 96])


@pytest.mark.parametrize("batch", [1, 7])
def test_scores_as_pytorch_at_any_batch_size(run: Path, data_root: Path, batch: int) -> None:
    frames = [read_frame(path) for path in list_pictures(data_root / "plate/test")[:batch]]
    scorer = Scorer(run / "plate-padim.onnx", device="cpu")
    expected, results = load(run).predict(frames), scorer.score_batch(frames)
    assert len(results) == batch
    for prediction, result in zip(expected, results, strict=True):
        assert result.score == pytest.approx(prediction.score, rel=1e-4)
        np.testing.assert_allclose(result.anomaly_map, prediction.anomaly_map, rtol=1e-3)


def test_the_file_says_what_it_is(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    info = Scorer(run / "plate-padim.onnx", device="cpu").info
    assert (info.method, info.category, info.input_size) == ("padim", "plate", (64, 96))
    assert info.threshold == metrics["threshold"]
    assert info.training["n_train"] == metrics["n_train"] == 24
    assert info.training["content_hash"] == metrics["content_hash"]
    assert info.parity["score_difference"] < 1e-3
    assert info.metrics["image_auroc"] == metrics["image_auroc"]


def test_a_mismatch_keeps_the_old_file_and_names_both_figures(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "plate-padim.onnx").read_bytes()
    original = PaDiM.forward

    def drifted(self: PaDiM, frames: Tensor) -> tuple[Tensor, Tensor]:
        score, anomaly_map = original(self, frames)
        return score * (1.0 if torch_is_exporting() else 1.01), anomaly_map

    monkeypatch.setattr(PaDiM, "forward", drifted)
    exact = ExportOptions(precision="fp32")
    with pytest.raises(ExportError, match=r"from PyTorch and .* from the graph"):
        export(copy, options=exact)
    assert (copy / "plate-padim.onnx").read_bytes() == before
    assert not [path for path in copy.iterdir() if path.name.startswith(".")]


def test_a_run_that_is_trained_again_meanwhile_gets_no_file_of_before(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained_again(*arguments: Any) -> Any:
        (copy / "plate-padim.onnx").unlink()  # it is put out of use
        text = (copy / "detector.json").read_text()
        (copy / "detector.json").write_text(text.replace('"sha256": "', '"sha256": "0'))
        return compare(*arguments)

    monkeypatch.setattr(exporter, "compare", trained_again)
    with pytest.raises(ExportError, match="was trained again meanwhile"):
        export(copy, options=ExportOptions(target="portable"))
    assert list(copy.glob("*.onnx")) == []


def test_no_training_replaces_files_while_they_are_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = saved.read_description, list[Path]()

    def late(folder: Path) -> Any:
        asked.append(folder)
        with pytest.raises(BlockingIOError), locked(folder):
            pass
        with locked(folder, shared=True):  # others may read
            return real(folder)

    monkeypatch.setattr("edge_ad.models.read_description", late)
    load(run)
    assert asked == [run]


@pytest.mark.slow
def test_what_integers_score_too_coarsely_is_exported_in_floats(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Parity, "_problem_rounded", lambda _: "image AUROC falls")
    assert export(copy).parity.precision == "fp32"
    assert "int8 is too coarse for this run (image AUROC falls): exporting in fp32" in caplog.text
    with pytest.raises(ExportError, match="--precision fp32"):
        export(copy, options=ExportOptions(precision="int8"))
    assert export(copy, options=ExportOptions(force=True)).parity.precision == "int8"


@pytest.mark.slow
def test_a_run_without_test_pictures_is_proven_on_those_of_its_own_gallery(
    data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_root / "plate" / "train", tmp_path / "data" / "plate" / "train")
    category = load_category("plate", tmp_path / "data")
    run = train(SPADE(weights="none", input_size=(64, 96)), category, tmp_path / "results").folder
    done = export(run, options=ExportOptions(target="portable"))
    # Their scores are next to nothing, and so is what is left to compare.
    assert abs(done.parity.worst_scores[0]) < done.info.threshold / 100
    scorer = Scorer(done.path, device="cpu")
    assert scorer.golden is not None
    scorer.golden.check(scorer)
    # Of the gallery's own pictures nothing but rounding would be compared.
    assert all(frame.score > 0.1 * scorer.threshold for frame in scorer.golden.frames)


def torch_is_exporting() -> bool:
    import torch

    return torch.compiler.is_exporting()


def test_pictures_that_are_gone_are_named(copy: Path) -> None:
    (copy / "scores.csv").write_text("path,label,score,verdict,mask\n/gone/1.png,good,1.0,good,\n")
    (copy / "good_scores.csv").write_text("path,score,map_min,map_max,set_aside\n")
    with pytest.raises(DataError, match=r"/gone/1\.png"):
        export(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("detector.safetensors", b"damaged"),
        ("detector.json", b"{"),
        ("metrics.json", b"[]"),
        ("scores.csv", b"path\n/1.png\n"),
        ("good_scores.csv", b"\0"),
    ],
)
def test_a_damaged_run_is_refused(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match="train"):
        export(copy)


@pytest.mark.slow
def test_command_line_takes_the_newest_run(copy: Path, tmp_path: Path) -> None:
    output = tmp_path / "line1.onnx"
    arguments = ["export", "--results", str(tmp_path), "--output", str(output), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == str(output)
    assert output.is_file()


def test_command_line_without_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", "--results", str(tmp_path)])
    assert result.exit_code == 1
    assert "edge-ad train" in result.stderr


def test_an_output_folder_that_is_not_there_or_no_file(copy: Path) -> None:
    with pytest.raises(ExportError, match="expected a file as --output, got the folder"):
        export(copy, copy)
    with pytest.raises(ExportError, match="cannot write"):
        export(copy, copy / "nowhere" / "x.onnx")


def test_masks_that_are_gone_are_left_out(tmp_path: Path, run: Path) -> None:
    read = Run.read(run)
    gone = replace(read.scored[-1].sample, mask_path=tmp_path / "gone.png")
    listed = ProofPictures.of(replace(read, scored=(*read.scored, ScoredSample(gone, 1.0))))
    assert listed.test[-1].mask_path is None and listed.test[-2].mask_path is not None
