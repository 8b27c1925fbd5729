"""Every command of docs/first-day.md runs, in its order, as it is printed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/first-day.md"
GOLDEN = ROOT / "tests/golden"
DEADLINE_SECONDS = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the page speaks to a POSIX shell"),
]


def blocks() -> dict[str, list[str]]:
    """The commands of the page, by section."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        found[title] = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return found


def commands(title: str, index: int = 0) -> str:
    (name,) = [name for name in blocks() if name.startswith(title)]
    return blocks()[name][index]


def shell(text: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run commands in bash; the folder it ends in is told in its last row."""
    done = subprocess.run(
        ["bash", "-euc", f"{text}\necho\npwd"],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def with_index(
    text: str, folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run commands that download packages; where pip reaches no index the test is skipped."""
    try:
        return shell(text, folder, **variables)
    except AssertionError as error:
        if re.search("No matching distribution|Could not find a version|Errno|retr", str(error)):
            pytest.skip(f"pip reaches no index: {str(error).splitlines()[-1]}")
        raise


def wait(wanted: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found = wanted()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A folder with `edge-ad`, which runs what is tested."""
    folder = tmp_path / "device/bin"
    folder.mkdir(parents=True)
    script = folder / "edge-ad"
    path = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -c '
        '"from edge_ad.cli import main; main()" "$@"\n'
    )
    script.chmod(0o755)
    return str(folder)


def test_from_pictures_to_a_marked_false_alarm(
    data_root: Path, tmp_path: Path, programs: str
) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")
    if shutil.which("curl") is None:
        pytest.skip("no curl: apt-get install curl")
    home = tmp_path / "home"
    home.mkdir()
    variables = {
        "HOME": str(home),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CAMERA": str(data_root / "plate/train/good"),
        "PARTS": str(data_root / "plate/test/spot"),
    }
    shell(commands("2."), tmp_path, **variables)
    assert len(list((tmp_path / "datasets/alien/train/good").glob("*.png"))) == 24
    trained = shell(commands("3."), tmp_path, **variables).stdout
    assert "24 good pictures fitted" in trained and "limit" in trained
    exported = shell(commands("4."), tmp_path, **variables)
    assert "alien-fusion.onnx" in exported.stdout and "comparing it with PyTorch" in exported.stderr
    with inspection(tmp_path, variables) as port:
        parts = camera(port)["parts"]
        changed = commands("7.").replace("8080", str(port))
        assert json.loads(shell(changed, tmp_path).stdout.splitlines()[0])["threshold"] == 17
        marked = post(port, "mark", {"id": parts[0]["id"], "mark": "false alarm", "who": "Ada"})
    assert (tmp_path / "device" / marked["path"]).is_file()
    events = [json.loads(row) for row in (tmp_path / "lines").read_text().splitlines()]
    kinds = [event["event"] for event in events if "event" in event]
    assert {"threshold changed", "verdict marked"} <= set(kinds)
    # The page trains and exports once more; the picture that joins the others is what is new.
    copied = commands("8.").splitlines()[:2]
    assert commands("8.").splitlines()[2:] == [
        commands("3.").strip(),
        commands("4.").splitlines()[0],
    ]
    shell("\n".join(copied), tmp_path / "device")
    assert len(list((tmp_path / "datasets/alien/train/good").glob("*.png"))) == 25
    assert list(home.iterdir()) == [], "nothing is written into the home folder unasked"


class inspection:
    """The commands of section 6: a stream with the live page, and parts that arrive."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._folder, self._variables = folder, variables

    def __enter__(self) -> int:
        text = commands("6.").replace("8080", str(self._port)).rstrip()
        rows = text.splitlines()
        rows[-1] = f"exec {rows[-1]}"
        with (self._folder / "lines").open("w") as lines:
            self._process = subprocess.Popen(
                ["bash", "-euc", "\n".join(rows)],
                cwd=self._folder,
                env=os.environ | self._variables,
                stdout=lines,
            )
        try:
            wait(lambda: self._answers())
            shell(commands("6.", 1), self._folder / "device", **self._variables)
            wait(lambda: camera(self._port)["frames"] == 6)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self._port

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(60) == 130

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the stream has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def camera(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)["cameras"][0]
    return found


def post(port: int, path: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_from_a_clone_to_a_device_without_an_index(tmp_path: Path) -> None:
    if shutil.which("make") is None or not (ROOT / ".git").exists():
        pytest.skip("needs make, and a git checkout to clone")
    variables = {"PYTHON": sys.executable, "PIP_NO_COMPILE": "1", "PIP_QUIET": "2"}
    install = commands("1.").replace("REPOSITORY", str(ROOT))
    assert "[train,cpu]" in install
    # The packages for training are those of the tests already: gigabytes.
    install = install.replace("pip install './dist", "pip install --no-deps './dist")
    done = with_index(install, tmp_path, variables)
    clone = Path(done.stdout.splitlines()[-1])
    assert clone == tmp_path / "edge-ad"
    bundle, bare = blocks()["5. Install on a device without internet"]
    with_index(bundle, clone, variables)
    shell(bare.replace("python3", sys.executable), clone, **variables)
    listed = shell("device/bin/pip list --format freeze", clone).stdout
    assert "onnxruntime" in listed and "torch" not in listed
    model = GOLDEN / "padim/chip-padim.onnx"
    asked = f"device/bin/edge-ad predict {model} {GOLDEN / 'good.png'} --json"
    (verdict,) = json.loads(shell(asked, clone, PYTHONPATH="").stdout.rpartition("\n/")[0])
    assert isinstance(verdict["score"], float)


def test_the_page_says_what_it_runs() -> None:
    assert [len(found) for found in blocks().values()] == [1, 1, 1, 1, 2, 2, 1, 1]
