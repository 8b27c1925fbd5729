"""The promised figures on real pictures: train, export, and the same verdicts through the file."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from edge_ad.cli import main

pytestmark = pytest.mark.slow


def run(*arguments: object) -> str:
    """Run the command line in place and return its stdout."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("category", "image_auroc", "pixel_auroc"),
    [
        ("bottle", 0.995, 0.975),
        ("transistor", 0.985, 0.98),
        ("alien", 0.95, None),  # not square, 40 good pictures, no masks
    ],
)
def test_padim_reaches_its_figures_and_keeps_them_in_the_file(
    real_pictures: Path,
    tmp_path: Path,
    category: str,
    image_auroc: float,
    pixel_auroc: float | None,
) -> None:
    where = ["--data-root", real_pictures, "--results", tmp_path]
    metrics = json.loads(run("train", "padim", "--class", category, *where, "--json"))
    assert metrics["image_auroc"] >= image_auroc
    if pixel_auroc is None:
        assert metrics["pixel_auroc"] is None
    else:
        assert metrics["pixel_auroc"] >= pixel_auroc

    exported = json.loads(run("export", "--results", tmp_path, "--json"))
    # A picture with an alarm is no failure: predict's exit code is 0.
    results = json.loads(
        run("predict", exported["model"], real_pictures / category / "test", "--json")
    )
    labels = [Path(item["path"]).parent.name != "good" for item in results]
    through_the_file = roc_auc_score(labels, [item["score"] for item in results])
    assert through_the_file == pytest.approx(metrics["image_auroc"], abs=0.001)

    if category != "bottle":
        return  # once is enough
    # In float32 every picture keeps its score and its verdict; the default file rounds to 8 bits.
    plain = json.loads(run("export", "--results", tmp_path, "--target", "portable", "--json"))
    results = json.loads(
        run("predict", plain["model"], real_pictures / category / "test", "--json")
    )
    with (tmp_path / category / "padim" / "scores.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(results) == len(rows)
    for item in results:
        row = rows[str(Path(item["path"]).resolve())]
        assert item["score"] == pytest.approx(float(row["score"]), rel=1e-3)
        assert item["anomalous"] == (row["verdict"] == "anomalous")
