"""Killing an export leaves the old file or the new one."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edge_ad.data import load_category
from edge_ad.models import PaDiM
from edge_ad.train import train

pytestmark = pytest.mark.slow

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from edge_ad_export import exporter

def kill(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

exporter.compare, exporter.os.replace = {
    "proof": (kill, os.replace),
    "replacement": (exporter.compare, kill),
}[sys.argv[1]]
exporter.export(Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    detector = PaDiM(weights="none", input_size=(32, 32), layers=["stage2"])
    return train(detector, load_category("plate", data_root), tmp_path_factory.mktemp("r")).folder


@pytest.mark.parametrize("moment", ["proof", "replacement"])
def test_a_killed_export_leaves_the_old_file(run: Path, moment: str) -> None:
    path = run / "plate-padim.onnx"
    path.write_bytes(b"the old file")
    command = [sys.executable, "-c", KILLED_AT, moment, str(run)]
    assert subprocess.run(command, check=False).returncode == -9
    assert path.read_bytes() == b"the old file"


def test_the_next_export_succeeds_and_clears_what_was_left(run: Path) -> None:
    from edge_ad_export import export

    path = export(run).path
    onnx.checker.check_model(onnx.load(path))
    assert not list(run.glob(".export-*"))
