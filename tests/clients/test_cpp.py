"""The C++ client is built from source and gives the scores of the device."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import onnxruntime
import pytest

from edge_ad_runtime import read_frame
from tests.clients.conftest import CLIENTS, FRAMES, Case, each_model

CLIENT = CLIENTS / "cpp"
INCLUDES = (CLIENT / "headers", Path("/usr/include/onnxruntime"))
MISSING = [tool for tool in ("cmake", "g++") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install them"),
    pytest.mark.skipif(
        not any((folder / "onnxruntime_cxx_api.h").exists() for folder in INCLUDES),
        reason="no headers of ONNX Runtime: run `make clients`",
    ),
    pytest.mark.skipif(
        not Path("/usr/include/nlohmann/json.hpp").exists(),
        reason="no JSON library: apt-get install nlohmann-json3-dev",
    ),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked with the library that the Python package brings."""
    build = tmp_path_factory.mktemp("build")
    (found,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    library = build / "libonnxruntime.so.1"
    library.symlink_to(found)
    include = next(folder for folder in INCLUDES if folder.exists())
    options = [f"-DONNXRUNTIME_INCLUDE={include}", f"-DONNXRUNTIME_LIBRARY={library}"]
    for command in (
        ["cmake", "-S", str(CLIENT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *options],
        ["cmake", "--build", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    return build / "edge_ad_score"


def as_ppm(picture: Path, folder: Path) -> Path:
    path = folder / f"{picture.stem}.ppm"
    assert cv2.imwrite(str(path), read_frame(picture))
    return path


def run(client: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [client, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@each_model
def test_it_gives_the_golden_scores(client: Path, case: Case, tmp_path: Path) -> None:
    done = run(client, case.model, *(as_ppm(picture, tmp_path) for picture in case.scores))
    assert done.returncode == 0, done.stderr
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    case.check(lines)


def test_it_refuses_what_it_cannot_use_with_a_sentence(client: Path, tmp_path: Path) -> None:
    model = FRAMES / "board-fusion.onnx"
    frame = as_ppm(FRAMES / "frames/shrinks.png", tmp_path)
    newer = tmp_path / "newer.onnx"
    newer.write_bytes(model.read_bytes().replace(b"version\x12\x011", b"version\x12\x012"))
    cut = tmp_path / "cut.ppm"
    cut.write_bytes(frame.read_bytes()[:999])
    for wrong, reason in ((newer, "version 2"), (cut, "cannot use"), (tmp_path / "no", "read")):
        done = run(client, wrong, frame)
        assert (done.returncode, done.stdout) == (1, "") and reason in done.stderr
    done = run(client, model, cut, frame)
    assert done.returncode == 1 and "cut off" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert run(client).returncode == 2
