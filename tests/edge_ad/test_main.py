"""The command as a whole: Ctrl-C while it is still being loaded, its help, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli import main


@pytest.mark.parametrize(
    ("loading", "returncode", "told"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        (
            "raise ImportError('initialization failed') from KeyboardInterrupt()",
            130,
            "interrupted\n",
        ),
        ("raise ImportError('no such file')", 1, "no such file\n"),
    ],
)
def test_ctrl_c_while_packages_are_loading(
    tmp_path: Path, loading: str, returncode: int, told: str
) -> None:
    (tmp_path / "click.py").write_text(loading)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "edge_ad", "runs"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == returncode, done.stderr
    assert done.stderr.endswith(told)
    assert ("Traceback" in done.stderr) == (returncode == 1)


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "edge_ad", "--version"]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 0 and "version" in done.stdout


def test_the_list_of_commands_cuts_no_sentence_off() -> None:
    told = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    listed = told.partition("Commands:")[2]
    assert "stream" in listed and "..." not in listed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_behind_stdout() -> None:
    model = next(Path(__file__).parents[1].glob("golden/padim/*.onnx"))
    command = [sys.executable, "-m", "edge_ad", "info", str(model)]
    # Buffered, as without a terminal: then Python writes what is left once more when it ends.
    buffered = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    assert done.returncode == 1 and done.stderr.startswith("Error: cannot write the result")
    assert len(done.stderr.splitlines()) == 1
