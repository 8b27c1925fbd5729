"""`edge-ad info` on an exported file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad.data import load_category
from edge_ad.models import PaDiM
from edge_ad.train import train
from edge_ad_export import export


@pytest.fixture(scope="module")
def model(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    detector = PaDiM(weights="none", input_size=(32, 64))
    folder = train(detector, load_category("plate", data_root), tmp_path_factory.mktemp("r")).folder
    return export(folder).path


def test_json_holds_metadata_operators_and_sizes(model: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(model), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["method"], document["category"], document["target"]) == (
        "padim",
        "plate",
        "cpu",
    )
    assert document["parity"]["precision"] == "int8"
    assert document["size_bytes"] == model.stat().st_size
    assert document["operators"]["MatMulInteger"] == 2
    sizes = document["bytes_by_part"]
    assert sizes["backbone"] > 500_000
    # Two blocks of the 176 x 176 triangle for 4 x 8 positions, a byte each, means and scales.
    assert sizes["statistics"] == pytest.approx(32 * (0.75 * 176 * 176 + 2 * 176 * 4), rel=0.01)
    assert sum(sizes.values()) < document["size_bytes"]


def test_text_names_the_threshold(model: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(model)])
    assert result.exit_code == 0
    assert "threshold" in result.stdout


def test_a_device_with_onnx_and_without_torch_reads_it_too(model: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'edge-ad'; "
        "from edge_ad.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "info", str(model)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "MatMulInteger" in result.stdout


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["info", str(tmp_path / "no.onnx")])
    assert result.exit_code == 1
    assert "no.onnx" in result.stderr
