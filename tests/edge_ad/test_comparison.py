"""Cells, resumption, failures and the tables."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad.comparison.cells import Cell, CellResult, Settings, run_cells
from edge_ad.comparison.published import IMAGE_AUROC_MEAN, PIXEL_AUROC, PIXEL_AUROC_MEAN
from edge_ad.comparison.table import COLUMNS, markdown, write_tables
from edge_ad.config import METHODS
from edge_ad.data import MVTEC_CLASSES
from edge_ad.models import DETECTORS, create
from edge_ad.run_metrics import RunMetrics

UNTRAINED = Settings(options={"weights": "none", "size": 64})


def result(method: str, category: str, image: float, pixel: float | None) -> CellResult:
    metrics = RunMetrics(
        method=method,
        category=category,
        backbone="efficientnet_lite0",
        input_size=(64, 64),
        seed=0,
        n_train=3,
        n_skipped=0,
        content_hash="00",
        fit_seconds=1.0,
        threshold=1.0,
        threshold_rule="a rule",
        false_alarm_rate=0.01,
        score_range=(0.0, 1.0),
        map_range=(0.0, 1.0),
        map_threshold=1.0,
        image_auroc=image,
        pixel_auroc=pixel,
    )
    return CellResult(cell=Cell(method=method, category=category), metrics=metrics)


def test_command_line_and_code_agree_on_the_methods() -> None:
    assert tuple(DETECTORS) == METHODS
    assert set(PIXEL_AUROC) == set(METHODS) - {"fusion"}  # ours: no paper reports it


@pytest.mark.parametrize("method", PIXEL_AUROC)
def test_published_rows_average_to_the_published_mean(method: str) -> None:
    rows = PIXEL_AUROC[method]
    assert set(rows) == set(MVTEC_CLASSES)
    assert sum(rows.values()) / 15 == pytest.approx(PIXEL_AUROC_MEAN[method], abs=0.06)


def test_tables_of_own_classes_have_no_paper_columns() -> None:
    text = markdown([result("padim", "plate", 0.987, None), result("spade", "plate", 0.5, 0.25)])
    assert "| class | PaDiM | SPADE |" in text
    assert "| plate | 98.7 | 50.0 |" in text
    assert "| plate | - | 25.0 |" in text
    assert "| mean of 0 | - | - |" in text  # no row that both have
    assert "paper" not in text


def test_verdicts_have_tables_of_their_own() -> None:
    one = result("padim", "bottle", 1.0, None)
    assert one.metrics is not None
    metrics = replace(one.metrics, test_false_alarm_rate=0.025, test_miss_rate=0.5)
    text = markdown([replace(one, metrics=metrics)])
    alarms, missed = text.split("Good test pictures called anomalous, in percent")[1].split(
        "Defective test pictures missed, in percent"
    )
    assert "| class | PaDiM |" in alarms and "| bottle | 2.5 |" in alarms
    assert "| bottle | 50.0 |" in missed and "| mean of 1 | 50.0 |" in missed


def test_a_figure_of_zero_counts() -> None:
    text = markdown([result("padim", "plate", 0.0, None), result("padim", "cable", 1.0, None)])
    assert "| mean of 2 | 50.0 |" in text


def test_a_name_that_is_no_text_breaks_no_table(tmp_path: Path) -> None:
    cell = Cell(method="padim", category="plate")
    failed = CellResult(cell=cell, metrics=None, error="cannot read \udcff.png")
    write_tables(tmp_path, [failed], UNTRAINED)
    assert b"cannot read \xff.png" in (tmp_path / "benchmark.csv").read_bytes()


def test_names_may_be_given_in_several_options(tmp_path: Path) -> None:
    arguments = ["compare", "--methods", "padim", "--methods", "spade", "--classes", "cable,plate"]
    arguments += ["--classes", "screw", "--data-root", str(tmp_path), "--results", str(tmp_path)]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 1 and "6 of 6 cells failed" in told.stderr


def test_a_class_that_is_no_text_breaks_no_comparison(tmp_path: Path) -> None:
    arguments = ["compare", "--methods", "padim", "--classes", "\udcff", "--results", str(tmp_path)]
    told = CliRunner().invoke(main, [*arguments, "--data-root", str(tmp_path)])
    assert told.exit_code == 1 and "1 of 1 cells failed" in told.stderr


def test_results_that_cannot_be_written_are_told_first(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ["compare", "--data-root", str(data_root), "--results", str(tmp_path / "file")]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 1 and "cannot write into the folder" in told.stderr


def test_mvtec_classes_stand_beside_the_paper() -> None:
    text = markdown([result("patchcore", "bottle", 1.0, 0.98), result("patchcore", "x", 0.5, 0.5)])
    assert "| class | PatchCore (edge-ad) | PatchCore (paper) |" in text
    assert "| bottle | 100.0 | 100.0 |" in text
    assert "| x | 50.0 | - |" in text
    assert "| mean of 2 | 75.0 | - |" in text  # the paper does not report x


def test_all_classes_bring_the_papers_mean() -> None:
    text = markdown([result("spade", name, 0.9, 0.9) for name in MVTEC_CLASSES])
    assert f"| mean of 15 | 90.0 | {IMAGE_AUROC_MEAN['spade']:.1f} |" in text


def test_writes_three_files(tmp_path: Path) -> None:
    failed = CellResult(cell=Cell(method="spade", category="b"), metrics=None, error="no pictures")
    write_tables(tmp_path, [result("padim", "a", 0.9, 0.8), failed], UNTRAINED)
    rows = list(csv.DictReader((tmp_path / "benchmark.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["image_auroc"], rows[1]["error"]) == ("0.9", "no pictures")
    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert document["settings"]["weights"] == "none"
    assert [cell["category"] for cell in document["cells"]] == ["a", "b"]


def run(data_root: Path, results: Path, *options: str) -> tuple[int, str, str]:
    arguments = ["benchmark", "--data-root", str(data_root), "--results", str(results)]
    outcome = CliRunner().invoke(main, [*arguments, "--weights", "none", "--size", "64", *options])
    return outcome.exit_code, outcome.stdout, outcome.stderr


@pytest.mark.slow
def test_command_line_runs_each_cell_once(data_root: Path, tmp_path: Path) -> None:
    code, table, _ = run(data_root, tmp_path, "--methods", "padim,patchcore")
    assert code == 0 and "| plate |" in table
    run_file = tmp_path / "plate/padim/metrics.json"
    before = run_file.stat().st_mtime_ns
    assert run(data_root, tmp_path, "--methods", "padim,patchcore")[:2] == (0, table)
    assert run_file.stat().st_mtime_ns == before
    assert run(data_root, tmp_path, "--methods", "padim", "--again")[0] == 0
    assert run_file.stat().st_mtime_ns > before


def test_other_settings_are_another_cell(data_root: Path, tmp_path: Path) -> None:
    run(data_root, tmp_path, "--methods", "padim")
    before = (tmp_path / "plate/padim/metrics.json").stat().st_mtime_ns
    run(data_root, tmp_path, "--methods", "padim", "--seed", "1")
    assert (tmp_path / "plate/padim/metrics.json").stat().st_mtime_ns > before


@pytest.mark.slow
def test_other_pictures_are_measured_again(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(data_root, tmp_path / "data")
    cells = [Cell(method="padim", category="plate")]
    (first,) = run_cells(cells, UNTRAINED, data, tmp_path)
    assert run_cells(cells, UNTRAINED, data, tmp_path) == [first]
    assert "measured on other pictures" not in caplog.text
    (data / "plate/ground_truth/spot/000_mask.png").unlink()
    (again,) = run_cells(cells, UNTRAINED, data, tmp_path)
    assert first.metrics and again.metrics
    assert again.metrics.pixel_auroc != first.metrics.pixel_auroc
    assert "padim was measured on other pictures than those of plate now" in caplog.text
    shutil.rmtree(data)
    (gone,) = run_cells(cells, UNTRAINED, data, tmp_path)
    assert gone.metrics is None and "plate" in str(gone.error)


def test_a_failing_cell_keeps_the_others(data_root: Path, tmp_path: Path) -> None:
    options = ["--methods", "padim", "--classes", "plate,nowhere", "--json"]
    code, printed, message = run(data_root, tmp_path, *options)
    assert code == 1 and "1 of 2 cells failed" in message and "nowhere" in message
    good, failed = json.loads(printed)["cells"]
    assert good["image_auroc"] is not None and failed["error"]


def test_an_unknown_method_is_wrong_usage(data_root: Path, tmp_path: Path) -> None:
    code, _, message = run(data_root, tmp_path, "--methods", "padm")
    assert code == 2 and "padm" in message


@pytest.mark.filterwarnings("ignore")  # dask's own, which differ from version to version
@pytest.mark.slow
def test_cells_run_on_a_dask_cluster(data_root: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    cells = [Cell(method=method, category="plate") for method in ("padim", "spade")]
    with (
        distributed.Client(processes=False, n_workers=1, dashboard_address=None),
        joblib.parallel_config(backend="dask"),
    ):
        outcomes = run_cells(cells, UNTRAINED, data_root, tmp_path, workers=2)
    assert [item.cell for item in outcomes] == cells
    assert all(item.metrics for item in outcomes)


def test_the_paper_preset_is_what_the_papers_used() -> None:
    settings = Settings(preset="paper", options={"backbone": "resnet18", "weights": "none"})
    detector = create(settings.config("patchcore"))
    assert detector.backbone.name == "resnet18"
    assert detector.preprocessing.input_size == (224, 224)
    assert detector.preprocessing.resize == 256
    assert detector.config.to_json()["coreset"] == 0.1
