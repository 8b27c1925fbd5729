"""`edge-ad stream` and `edge-ad predict`: lines, exit codes, signals, a device without torch."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_ad.cli import main
from edge_ad_runtime.errors import counted

NAMES = {"timestamp", "score", "threshold", "anomalous", "p_value", "regions", "latency_ms"}
BLOCKED = "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'sklearn'))); "
RUN = "from edge_ad.cli import main; main()"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGE_AD_MODEL", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_stream_of_a_folder(model: Path, pictures: Path) -> None:
    result = run("stream", "--camera", pictures, "--model", model, "--output", "kept")
    assert result.exit_code == 0
    found = lines(result.stdout)
    assert [line["frame"] for line in found] == [0, 1, 2, 3, 4]
    assert [line["anomalous"] for line in found] == [False, False, False, True, True]
    assert set(found[0]) == NAMES | {"frame", "camera", "path"}
    assert found[0]["camera"] == str(pictures)
    assert "padim on plate" in result.stderr and "CPUExecutionProvider" in result.stderr
    assert "5 frames, 2 anomalous, 0 skipped, 0 failed" in result.stderr
    assert sorted(os.listdir("kept")) == ["000003-150.jpg", "000004-200.jpg"]


def test_stream_without_torch_and_onnx(
    model: Path, write_video: Callable[[str, Sequence[int]], Path]
) -> None:
    video = write_video("parts.mp4", [20] * 30 + [220] * 10)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + RUN, "stream", "--camera", video, "--model", model],
        capture_output=True,
        text=True,
        check=True,
    )
    found = lines(done.stdout)
    assert [line["frame"] for line in found] == list(range(40))
    assert sum(bool(line["anomalous"]) for line in found) == 10
    assert set(found[0]) == NAMES | {"frame", "camera"}


def test_stream_finds_its_model(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("stream", "--camera", pictures, "--max-frames", 2)
    nothing = run(*arguments)
    assert nothing.exit_code == 1
    assert "$EDGE_AD_MODEL" in nothing.stderr
    newest = tmp_path / "results/plate/padim/plate-padim.onnx"
    newest.parent.mkdir(parents=True)
    newest.write_bytes(model.read_bytes())
    assert "results/plate/padim/plate-padim.onnx: padim" in run(*arguments).stderr
    monkeypatch.setenv("EDGE_AD_MODEL", str(model))
    assert f"{model}: padim" in run(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera", "99"], "cannot open the camera 99"),
        (["--camera", "rtsp://u:pw@127.0.0.1:9/a"], "cannot open the camera rtsp://***@127.0.0.1"),
        (["--camera", "missing.mp4"], "found nothing at"),
        (["--camera", "pictures", "--output", "model.onnx/a"], "cannot write into the folder"),
        (["--camera", "pictures", "--model", "pictures/000.png"], "not an ONNX model"),
        (["--camera", "pictures", "--model", "missing.onnx"], "cannot read the model file"),
        (["--camera", "pictures", "--threshold", "nan"], "finite number"),
    ],
)
def test_stream_refuses(model: Path, pictures: Path, arguments: list[str], message: str) -> None:
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model)]
    result = run("stream", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("camera", ["99", "/dev/video99", "http://u:pw@127.0.0.1:9/a", "text.mp4"])
def test_a_source_that_fails_is_one_line(model: Path, tmp_path: Path, camera: str) -> None:
    """In a process of its own: OpenCV and FFmpeg write to stderr past Python."""
    (tmp_path / "text.mp4").write_text("text")
    done = subprocess.run(
        [sys.executable, "-c", RUN, "stream", "--camera", camera, "--model", model],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "pw" not in done.stderr


def test_stream_goes_on_behind_a_corrupt_picture(model: Path, pictures: Path) -> None:
    (pictures / "050.png").write_bytes(b"nothing")
    result = run("stream", "--camera", pictures, "--model", model)
    assert result.exit_code == 1
    found = lines(result.stdout)
    assert [line["frame"] for line in found if "event" not in line] == [0, 2, 3, 4]
    assert [line["event"] for line in found if "event" in line] == ["frame failed"]
    assert "1 failed" in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"]
)
def test_stream_ends_on_a_signal(model: Path, pictures: Path, number: int, code: int) -> None:
    for index in range(3000):
        os.link(pictures / "000.png", pictures / f"{index:05}.png")
    command = [sys.executable, "-c", RUN, "stream", "--camera", str(pictures)]
    with subprocess.Popen(
        [*command, "--model", str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(number)
        found = lines(first + process.stdout.read())
        log = process.stderr.read()
        assert process.wait(60) == code
    assert 0 < len(found) < 3000
    assert f"{counted(len(found), 'frame')}, 0 anomalous" in log
    assert "Traceback" not in log


def test_stream_ends_when_its_reader_goes(model: Path, pictures: Path) -> None:
    for index in range(2000):
        os.link(pictures / "000.png", pictures / f"{index:05}.png")
    command = [sys.executable, "-c", RUN, "stream", "--camera", str(pictures)]
    with subprocess.Popen(
        [*command, "--model", str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        log = process.stderr.read()
        assert process.wait(60) == 0
    assert "frames" in log and "Broken" not in log and "Traceback" not in log


def test_predict_table(model: Path, pictures: Path) -> None:
    result = run("predict", model, pictures, pictures / "200.png", "--output", "kept")
    assert result.exit_code == 0
    table = result.stdout.splitlines()
    assert len(table) == 7
    assert table[0].split() == ["good", "0.0000", str(pictures / "000.png")]
    assert table[5].split() == ["ANOMALOUS", "200.0000", str(pictures / "200.png")]
    assert table[6].startswith("6 pictures, 3 anomalous at the limit 100.0000")
    assert len(os.listdir("kept")) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_file_name_that_is_no_text_is_printed_all_the_same(model: Path, pictures: Path) -> None:
    os.link(pictures / "000.png", pictures / "\udcff.png")
    result = run("predict", model, pictures)
    assert result.exit_code == 0, result.output
    assert "\\udcff.png" in result.stdout and result.stdout.splitlines()[-1].startswith("6 ")


def test_predict_takes_a_glob(
    model: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run("predict", model, f"{pictures.parent}/**/*50.png", "--json")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in pictures.parent.rglob("*50.png"))
    assert sorted(Path(entry["path"]).name for entry in json.loads(result.stdout)) == names
    nothing = run("predict", model, f"{pictures}/*.gif", "--json")
    assert nothing.exit_code == 1 and "nothing that matches" in caplog.text


def test_stream_does_not_guess_which_product_the_camera_sees(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for category in ("cable", "plate"):
        folder = tmp_path / "results" / category / "padim"
        folder.mkdir(parents=True)
        (folder / f"{category}-padim.onnx").write_bytes(model.read_bytes())
    refused = run("stream", "--camera", pictures)
    assert refused.exit_code == 1 and "2 categories (cable, plate)" in refused.stderr
    (tmp_path / "results/cable/padim/cable-padim.onnx").unlink()
    assert run("stream", "--camera", pictures).exit_code == 0


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_predict_fails_on_an_anomaly_if_asked(
    model: Path, pictures: Path, form: tuple[str, ...]
) -> None:
    def code(*paths: Path) -> int:
        return run("predict", model, *paths, "--fail-on-anomaly", *form).exit_code

    assert run("predict", model, pictures, *form).exit_code == 0
    assert code(pictures) == 3
    assert code(pictures / "000.png") == 0
    (pictures / "050.png").write_bytes(b"nothing")
    assert code(pictures) == 1  # what could not be scored counts more


def test_predict_tells_of_12_bits_in_16(
    model: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        cv2.imwrite(str(pictures / f"{name}.tif"), np.full((32, 64), 4095, np.uint16))
    assert run("predict", model, pictures).exit_code == 0
    assert caplog.text.count(f"in {pictures} is nearly black") == 1


def test_predict_json(model: Path, pictures: Path) -> None:
    result = run("predict", model, pictures, "--json", "--threshold", 50)
    found = json.loads(result.stdout)
    assert [item["score"] for item in found] == [0, 50, 99, 150, 200]
    assert [item["anomalous"] for item in found] == [False, True, True, True, True]
    assert set(found[0]) == NAMES | {"path"}


def test_predict_names_what_it_cannot_read(model: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "050.png").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, "predict", model, pictures, "gone.png", "empty", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) == 4
    for name in ("050.png", "gone.png", "in empty: put some", "3 paths could not be scored"):
        assert name in done.stderr
    assert len(done.stderr.splitlines()) == 5


def test_predict_nothing_but_an_empty_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("predict", model, "empty", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == []


def test_predict_fails_where_a_score_is_no_number(
    write_model: Callable[..., Path], pictures: Path
) -> None:
    result = run("predict", write_model(divisor=0.0), pictures, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == []
    assert "5 paths could not be scored" in result.stderr


def test_commands_name_the_missing_extra(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for arguments in (("stream", "--camera", "0"), ("predict", model, pictures)):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "edge-ad[cpu]" in result.stderr
