"""`edge-ad train`: what it writes, and how it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import SafetensorError

from edge_ad.cli import main
from edge_ad.cli.options import wrapped
from edge_ad_runtime import read_frame
from edge_ad_runtime.files import locked
from edge_ad_runtime.model.calibration import Calibration

FAST = ["--weights", "none", "--input-size", "64x96"]


def train(data_root: Path, results: Path, *options: str, category: str = "plate") -> Result:
    where = ["--class", category, "--data-root", str(data_root), "--results", str(results)]
    return CliRunner().invoke(main, ["train", "padim", *where, *FAST, *options])


def error_of(result: Result) -> str:
    """The one line a user sees; anything but a clean refusal fails the test."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    result = train(data_root, results)
    assert result.exit_code == 0, result.output
    return results / "plate" / "padim"


def test_writes_a_complete_run_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "detector.safetensors",
        "detector.json",
        "metrics.json",
        "scores.csv",
        "good_scores.csv",
        "good_maps.safetensors",
        "report.html",
    }


def test_metrics_have_the_promised_names(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["image_auroc"] == 1.0
    assert metrics["pixel_auroc"] > 0.95
    assert 0 < metrics["pixel_pro"] <= 1
    assert metrics["threshold"] > 0
    assert (metrics["n_train"], metrics["n_test_good"], metrics["n_test_anomalous"]) == (24, 6, 6)
    assert metrics["fit_seconds"] > 0
    assert (metrics["backbone"], metrics["input_size"]) == ("efficientnet_lite0", [64, 96])
    assert metrics["seed"] == 0


def test_scores_list_each_test_picture_with_its_verdict(run: Path) -> None:
    threshold = json.loads((run / "metrics.json").read_text())["threshold"]
    with (run / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        assert Path(row["path"]).is_file()
        assert row["label"] in ("good", "spot")
        assert row["verdict"] == ("anomalous" if float(row["score"]) >= threshold else "good")


def test_json_prints_figures_and_folder(data_root: Path, tmp_path: Path) -> None:
    result = train(data_root, tmp_path, "--json", "--dims", "20")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["run"] == str(tmp_path / "plate/padim")
    assert printed["image_auroc"] is not None


def test_a_folder_of_good_pictures_is_enough(data_root: Path, tmp_path: Path) -> None:
    result = train(data_root / "plate/train", tmp_path, category="good")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "good/padim/metrics.json").read_text())
    assert metrics["image_auroc"] is None and metrics["pixel_auroc"] is None
    assert metrics["threshold"] > 0


def test_a_class_may_be_a_path(
    good_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(good_pictures)
    for number, name in enumerate((".", "../part/")):
        results = tmp_path / str(number)
        result = train(Path("nowhere"), results, category=name)
        assert result.exit_code == 0, result.output
        assert (results / "part/padim/report.html").is_file()


def test_long_rows_are_broken_at_the_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "limit        15.61: " + "on average " * 12
    assert wrapped(row) == row
    monkeypatch.setattr("edge_ad.cli.options.terminal_columns", lambda: 80)
    first, *others = wrapped(row).splitlines()
    assert len(first) <= 80 and others
    assert all(len(line) <= 80 and line[:14].rfind(" ") == 12 for line in others)


def test_options_before_the_method_are_told_where_they_belong() -> None:
    result = CliRunner().invoke(main, ["train", "--class", "plate"])
    assert result.exit_code == 2 and "edge-ad train fusion --class" in result.stderr


def test_pictures_of_12_bits_in_16_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.tif"), rng.integers(0, 4096, (64, 96), dtype=np.uint16))
    assert train(tmp_path, tmp_path / "results").exit_code == 0
    assert caplog.text.count("multiply its values by 64, 16 or 4 when they are saved") == 1


def test_the_centre_crop_of_the_papers(data_root: Path, tmp_path: Path) -> None:
    arguments = ["train", "padim", "--class", "plate", "--data-root", str(data_root)]
    arguments += ["--results", str(tmp_path), "--weights", "none", "--json"]
    result = CliRunner().invoke(main, [*arguments, "--resize", "80", "--center-crop", "64"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["input_size"] == [64, 64]
    alone = CliRunner().invoke(main, [*arguments, "--resize", "80"])
    assert alone.exit_code == 2 and "--center-crop" in alone.stderr


@pytest.fixture
def good_pictures(tmp_path: Path) -> Path:
    """Ten good pictures in `data/part`."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "part"
    folder.mkdir(parents=True)
    for index in range(10):
        pixels = rng.integers(0, 255, (64, 96, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
    return folder


def test_a_corrupt_picture_is_named_and_stops_the_training(good_pictures: Path) -> None:
    (good_pictures / "3.png").write_bytes(b"not a picture")
    results = good_pictures.parent.parent / "results"
    assert "3.png" in error_of(train(good_pictures.parent, results, category="part"))
    assert not list(results.rglob("*.json"))


def test_skip_bad_goes_on_and_counts_and_copies_are_told(
    good_pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (good_pictures / "3.png").write_bytes(b"not a picture")
    shutil.copy(good_pictures / "4.png", good_pictures / "copy.png")
    results = good_pictures.parent.parent / "results"
    result = train(good_pictures.parent, results, "--skip-bad", "--json", category="part")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_skipped"] == 1
    told = f"such as {good_pictures}/copy.png as {good_pictures}/4.png"
    assert caplog.text.count(told) == 1


def test_what_was_trained_before_a_failure_is_printed(good_pictures: Path) -> None:
    (good_pictures.parent / "bad").mkdir()
    (good_pictures.parent / "bad/1.png").write_bytes(b"not a picture")
    results = good_pictures.parent.parent / "results"
    result = train(
        good_pictures.parent, results, "--json", "--class", "bad", "--dims", "9", category="part"
    )
    assert "1 of 2 classes failed: bad" in error_of(result)
    assert json.loads(result.stdout)["category"] == "part"


def test_progress_that_cannot_be_written_is_one_sentence(good_pictures: Path) -> None:
    place = good_pictures / "nowhere/progress.json"
    result = train(
        good_pictures.parent, good_pictures.parent, "--progress", str(place), category="part"
    )
    assert "cannot write the progress file" in error_of(result)


def test_missing_class_says_which_there_are(data_root: Path, tmp_path: Path) -> None:
    message = error_of(train(data_root, tmp_path, category="plat"))
    assert "plat" in message and "plate" in message


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "data/part").mkdir(parents=True)
    error_of(train(tmp_path / "data", tmp_path / "results", category="part"))


def test_one_picture_only(good_pictures: Path) -> None:
    for index in range(1, 10):
        (good_pictures / f"{index}.png").unlink()
    message = error_of(train(good_pictures.parent, good_pictures, category="part"))
    assert "at least 3 pictures" in message and "got 1" in message


def test_dims_beyond_the_channels(data_root: Path, tmp_path: Path) -> None:
    assert "1 to 176" in error_of(train(data_root, tmp_path, "--dims", "1000"))


def test_results_that_cannot_be_written(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where a folder should be")
    assert "cannot write" in error_of(train(data_root, tmp_path / "results"))


def test_a_failed_run_leaves_the_old_one(good_pictures: Path) -> None:
    results = good_pictures.parent.parent / "results"
    assert train(good_pictures.parent, results, category="part").exit_code == 0
    before = {path.name: path.read_bytes() for path in (results / "part/padim").iterdir()}
    (good_pictures / "3.png").write_bytes(b"not a picture")
    error_of(train(good_pictures.parent, results, category="part"))
    after = {path.name: path.read_bytes() for path in (results / "part/padim").iterdir()}
    assert before == after


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_good_picture_is_fitted_and_scored_without_itself(run: Path, data_root: Path) -> None:
    rows = read_rows(run / "good_scores.csv")
    pictures = sorted((data_root / "plate/train/good").iterdir())
    assert [Path(row["path"]) for row in rows] == [path.resolve() for path in pictures]
    calibration = json.loads((run / "metrics.json").read_text())["calibration"]
    kept = sorted(float(row["score"]) for row in rows if row["set_aside"] == "0")
    assert calibration["scores"] == pytest.approx(kept)
    assert calibration["n"] == len(kept) == 24 - calibration["n_set_aside"]


def test_the_promise_is_said_everywhere(run: Path, data_root: Path, tmp_path: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["false_alarm_rate"] == pytest.approx(1 / (metrics["calibration"]["n"] + 1))
    result = train(data_root, tmp_path, "--false-alarm-rate", "5%")
    assert result.exit_code == 0, result.output
    assert "on average 5 % of good parts" in result.stdout
    assert "false alarms" in result.stdout and "missed" in result.stdout
    report = (tmp_path / "plate/padim/report.html").read_text()
    assert "On average 5 % of good parts" in report
    lower = json.loads((tmp_path / "plate/padim/metrics.json").read_text())
    assert lower["threshold"] < metrics["threshold"]


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "x", "nan", "200%"])
def test_a_rate_that_cannot_be_promised_is_wrong_usage(
    data_root: Path, tmp_path: Path, rate: str
) -> None:
    result = train(data_root, tmp_path, "--false-alarm-rate", rate)
    assert result.exit_code == 2 and "--false-alarm-rate" in result.stderr


def test_a_limit_from_f1_only_on_request(data_root: Path, tmp_path: Path) -> None:
    result = train(data_root, tmp_path, "--threshold-from", "f1", "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)
    assert metrics["threshold_rule"].startswith("highest F1")
    assert metrics["test_miss_rate"] == metrics["test_false_alarm_rate"] == 0
    both = train(data_root, tmp_path, "--threshold-from", "f1", "--false-alarm-rate", "0.1")
    assert "choose one" in error_of(both)
    only_good = ["--threshold-from", "f1"]
    message = error_of(train(data_root / "plate/train", tmp_path, *only_good, category="good"))
    assert "found no defective ones" in message


def test_excluded_pictures_are_not_fitted(data_root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "defective.txt"
    listed.write_text("good/001.png\n\n002.png\n", encoding="utf-8-sig")  # as Windows writes it
    whole = data_root / "plate/train/good/000.png"
    result = train(data_root, tmp_path, "--exclude", str(whole), "--exclude", str(listed), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_train"] == 21
    rows = read_rows(tmp_path / "plate/padim/good_scores.csv")
    assert {"000.png", "001.png", "002.png"}.isdisjoint(Path(row["path"]).name for row in rows)
    message = error_of(train(data_root, tmp_path, "--exclude", "099.png"))
    assert "'099.png'" in message


def test_two_classes_and_all(data_root: Path, good_pictures: Path, tmp_path: Path) -> None:
    (good_pictures.parent / "plate").symlink_to(data_root / "plate")
    root = good_pictures.parent
    both = train(root, tmp_path, "--class", "part", "--json")
    assert both.exit_code == 0, both.output
    assert [item["category"] for item in json.loads(both.stdout)] == ["plate", "part"]
    every = train(root, tmp_path, "--json", category="all")
    assert {item["category"] for item in json.loads(every.stdout)} == {"part", "plate"}
    (good_pictures / "3.png").write_bytes(b"not a picture")
    failed = train(root, tmp_path, category="all")
    assert "1 of 2 classes failed: part" in error_of(failed)


def test_training_again_takes_the_old_export_out_of_use(
    good_pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = tmp_path / "results"
    assert train(good_pictures.parent, results, category="part").exit_code == 0
    folder = results / "part/padim"
    for name in ("part-padim.onnx", "part-padim.onnx.calibration.json"):
        (folder / name).touch()
    assert train(good_pictures.parent, results, category="part").exit_code == 0
    assert sorted(path.name for path in folder.glob("*.onnx*")) == [
        "part-padim.onnx.calibration.json.old",
        "part-padim.onnx.old",
    ]
    assert "export again" in caplog.text


def test_a_picture_of_another_kind_is_in_the_list_to_look_at(
    good_pictures: Path, tmp_path: Path
) -> None:
    frame = read_frame(good_pictures / "4.png")
    frame[16:48, 16:64] = 255
    cv2.imwrite(str(good_pictures / "4.png"), frame)
    options = ("--weights", "pretrained")  # untrained, it hardly tells white from noise
    result = train(good_pictures.parent, tmp_path, *options, category="part")
    assert result.exit_code == 0, result.output
    report = (tmp_path / "part/padim/report.html").read_text()
    listed = report.split("are they good?")[1].split("</section>")[0]
    assert listed.index("4.png") < listed.index("<img")
    assert "--exclude" in listed


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "plate" / "padim"))


def limit(run: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["limit", str(run), *options])


def test_limit_changes_the_promise_without_fitting_again(copy: Path) -> None:
    before = json.loads((copy / "metrics.json").read_text())
    detector = (copy / "detector.safetensors").read_bytes()
    (copy / "plate-padim.onnx").touch()
    result = limit(copy, "--false-alarm-rate", "10%")
    assert result.exit_code == 0, result.output
    after = json.loads((copy / "metrics.json").read_text())
    calibration = Calibration.from_json(after["calibration"])
    assert after["threshold"] == calibration.limit(0.1) < before["threshold"]
    assert after["false_alarm_rate"] == 0.1
    for row in read_rows(copy / "scores.csv"):
        verdict = "anomalous" if float(row["score"]) >= after["threshold"] else "good"
        assert row["verdict"] == verdict
    report = (copy / "report.html").read_text()
    assert "On average 10 % of good parts" in report and "are they good?" in report
    assert "plate-padim.onnx still has its old limit" in result.stdout
    assert (copy / "detector.safetensors").read_bytes() == detector
    assert not list(copy.glob(".*"))
    again = limit(copy, "--false-alarm-rate", str(before["false_alarm_rate"]), "--json")
    assert json.loads(again.stdout)["threshold"] == before["threshold"]


def test_limit_is_refused_where_it_cannot_be_changed(copy: Path, tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "padim"
    assert "train it again" in error_of(limit(golden, "--false-alarm-rate", "0.1"))
    assert "is missing" in error_of(limit(tmp_path / "nowhere", "--false-alarm-rate", "0.1"))
    assert limit(copy).exit_code == 2
    before = (copy / "metrics.json").read_bytes()
    (copy / "good_scores.csv").write_bytes(b"damaged")
    assert "damaged" in error_of(limit(copy, "--false-alarm-rate", "0.1"))
    assert (copy / "metrics.json").read_bytes() == before


def test_one_process_at_a_time_changes_a_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_ad.train.LOCK_SECONDS", 0)
    with locked(copy):
        assert "another process is writing the run" in error_of(
            limit(copy, "--false-alarm-rate", "0.1")
        )
    assert limit(copy, "--false-alarm-rate", "0.1").exit_code == 0


def test_runs_are_a_table(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plate/spade").mkdir()
    (tmp_path / "plate/spade/detector.json").write_bytes(b"{}")
    arguments = ["runs", "--results", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    heading, row = result.stdout.splitlines()
    metrics = json.loads((copy / "metrics.json").read_text())
    assert heading.split()[:3] == ["category", "method", "trained"]
    assert row.split()[:2] == ["plate", "padim"]
    assert f"{metrics['threshold']:.4g}" in row and row.endswith("no")
    # Of a run on a device, which has no safetensors, the figures alone are read.
    (copy / "good_maps.safetensors").unlink()
    (entry,) = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert entry["run"] == str(copy) and entry["test_miss_rate"] == metrics["test_miss_rate"]
    monkeypatch.setattr(sys.modules["edge_ad.cli.runs"], "terminal_columns", lambda: 80)
    narrow = CliRunner().invoke(main, arguments).stdout.splitlines()
    assert max(map(len, narrow)) <= 80 and "missed" in narrow[0] and "good" not in narrow[0]
    assert narrow[-1].startswith("The terminal is too narrow for: good, pixel AUROC")
    nothing = CliRunner().invoke(main, ["runs", "--results", str(tmp_path / "nowhere")])
    assert nothing.exit_code == 0 and "no runs" in nothing.stdout


@pytest.mark.parametrize(
    "options",
    [["--class", "plaet"], ["--class", "plate", "--exclude", "no.png"], ["--class", "../plate"]],
)
def test_a_typo_is_told_before_pytorch_is_loaded(
    data_root: Path, tmp_path: Path, options: list[str]
) -> None:
    code = (
        "import sys, atexit; from edge_ad.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    where = ["--data-root", str(data_root), "--results", str(tmp_path)]
    told = subprocess.run(
        [sys.executable, "-c", code, "train", "padim", *options, *where],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (told.returncode, told.stdout.strip()) == (1, "False")
    assert told.stderr.startswith("Error: ") and told.stderr.count("\n") == 1


@pytest.mark.parametrize("full", ["safetensors", "report"])
def test_a_full_disk_is_one_sentence_and_keeps_the_run_before(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    assert train(data_root, tmp_path).exit_code == 0
    run = tmp_path / "plate/padim"
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def no_space(*_: object) -> None:
        if full == "safetensors":
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(28, "No space left on device")

    place = {
        "safetensors": "edge_ad.models.saved.save_file",
        "report": "edge_ad.train.write_report",
    }
    monkeypatch.setattr(place[full], no_space)
    assert "No space left on device" in error_of(train(data_root, tmp_path))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
