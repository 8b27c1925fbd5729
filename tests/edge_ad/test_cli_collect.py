"""`edge-ad collect`: whole pictures, different ones, and what is said about them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_ad.cli import main
from edge_ad_runtime import Frame, files, list_pictures, read_frame

RUN = "from edge_ad.cli import main; main()"


def part(place: int) -> Frame:
    """A picture of one part with edges, which lies somewhere else each time."""
    rng = np.random.default_rng(0)
    frame = np.full((120, 160, 3), 90, np.uint8)
    for _ in range(12):
        x, y = int(rng.integers(160)), int(rng.integers(120))
        colour = tuple(int(value) for value in rng.integers(40, 220, 3))
        cv2.rectangle(frame, (x, y), (x + 30, y + 20), colour, -1)
    return np.roll(frame, 9 * place, axis=1)


def noisy(frame: Frame, seed: int) -> Frame:
    noise = np.random.default_rng(seed).normal(0, 3, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight different parts."""
    path = tmp_path / "camera"
    path.mkdir()
    for number in range(8):
        cv2.imwrite(str(path / f"{number}.png"), part(number))
    return path


def collect(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(
        main, ["collect", *(str(argument) for argument in arguments)], input=stdin
    )


def figures(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_folder_works_as_a_camera(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "datasets" / "cable" / "train" / "good"
    result = collect("--camera", folder, "--output", output)
    assert result.exit_code == 0, result.output
    assert "pictures     8 in" in result.stdout and "difference" in result.stdout
    pictures = list_pictures(output)
    assert len(pictures) == len(list(output.iterdir())) == 8
    for number, path in enumerate(pictures):
        np.testing.assert_array_equal(read_frame(path), part(number))


def test_a_second_session_adds(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert (
            collect("--camera", folder, "--output", tmp_path / "out", "--count", 3).exit_code == 0
        )
    assert len(list_pictures(tmp_path / "out")) == 6


def test_a_standing_scene_is_passed_over(tmp_path: Path) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    for number in range(9):
        cv2.imwrite(str(camera / f"{number}.png"), noisy(part(number // 3), number))
    result = collect("--camera", camera, "--output", tmp_path / "out", "--json")
    found = figures(result)
    assert (found["pictures"], found["alike"]) == (3, 6)
    assert found["difference"]["lowest"] > 1.5
    assert len(list_pictures(tmp_path / "out")) == 3
    result = collect("--camera", camera, "--output", tmp_path / "all", "--keep-alike", "--json")
    assert figures(result)["pictures"] == 9


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda frame: cv2.GaussianBlur(frame, (0, 0), 6), "blurred"),
        (lambda frame: np.clip(frame.astype(float) * 3.5, 0, 255).astype(np.uint8), "over-exposed"),
        (lambda frame: (frame * 0.1).astype(np.uint8), "under-exposed"),
    ],
)
@pytest.mark.parametrize("place", [0, 7])
def test_doubtful_pictures_are_kept_and_named(
    folder: Path, tmp_path: Path, spoil: Any, word: str, place: int
) -> None:
    cv2.imwrite(str(folder / f"{place}.png"), spoil(part(place)))
    result = collect("--camera", folder, "--output", tmp_path / "out", "--json")
    doubts = figures(result)["doubts"]
    names = [path.name for path in list_pictures(tmp_path / "out")]
    assert len(names) == 8
    assert list(doubts) == [names[place]]
    assert doubts[names[place]][0].startswith(word)
    assert f"{names[place]} may be {word}" in result.stderr


def test_unreadable_pictures_are_told_and_passed_over(folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").write_bytes(b"no picture")
    result = collect("--camera", folder, "--output", tmp_path / "out", "--json")
    assert (figures(result)["pictures"], figures(result)["failed"]) == (7, 1)
    assert "3.png" in result.stderr


def test_lines_of_stdin_ask_for_pictures(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "collect", "--camera", str(folder)]
    command += ["--output", str(tmp_path / "out"), "--trigger", "stdin", "--json"]
    done = subprocess.run(command, input="a\nb\nc", text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_key_asks_for_pictures_and_the_terminal_is_given_back(
    folder: Path, tmp_path: Path
) -> None:
    import termios

    parent, child = pty.openpty()
    before = termios.tcgetattr(child)
    command = [sys.executable, "-c", RUN, "collect", "--camera", str(folder)]
    command += ["--output", str(tmp_path / "out"), "--key", "space", "--count", "2", "--json"]
    with subprocess.Popen(
        command, stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        assert "press space" in process.stderr.readline()
        assert not termios.tcgetattr(child)[3] & termios.ICANON
        os.write(parent, b"x y")
        wait(lambda: len(list_pictures(tmp_path / "out")) == 1)
        os.write(parent, b" ")
        assert process.wait(60) == 0
        assert json.loads(process.stdout.read())["pictures"] == 2
    assert termios.tcgetattr(child) == before
    os.close(parent)
    os.close(child)


def wait(what: Any) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupted_the_pictures_up_to_then_are_there(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", RUN, "collect", "--camera", str(folder)]
    command += ["--output", str(output), "--every", "30s", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        wait(lambda: output.is_dir() and len(list_pictures(output)) >= 1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in stderr
    there = list(output.iterdir())
    assert json.loads(stdout)["pictures"] == len(there) == len(list_pictures(output)) < 8
    for path in there:
        assert read_frame(path).shape == (120, 160, 3)


@pytest.mark.parametrize("written", [True, False])
def test_ctrl_c_around_a_write_counts_what_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    def write_whole(path: Path, data: bytes, **options: Any) -> None:
        second = len(list_pictures(path.parent)) == 1
        if written or not second:
            files.write_whole(path, data, **options)
        if second:
            raise KeyboardInterrupt

    monkeypatch.setattr("edge_ad_runtime.stream.collect.write_whole", write_whole)
    result = collect("--camera", folder, "--output", tmp_path / "out", "--json")
    assert result.exit_code == 130
    assert figures(result)["pictures"] == len(list_pictures(tmp_path / "out")) == 1 + written


def test_no_model_and_no_pytorch_are_needed(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom edge_ad.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", code, "collect", "--camera", str(folder)]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], text=True, capture_output=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--every", "2s", "--key", "space"], "only one of", 2),
        (["--every", "soon"], "expected a time such as 2s", 2),
        (["--every", "0s"], "expected a time", 2),
        (["--every", "9999h"], "expected a time", 2),
        (["--count", "0"], "--count", 2),
        (["--key", "escape"], "expected --key space, enter, tab or one letter", 1),
        (["--key", "space"], "needs a terminal", 1),
    ],
)
def test_refuses_options(
    folder: Path, tmp_path: Path, arguments: list[str], message: str, code: int
) -> None:
    result = collect("--camera", folder, "--output", tmp_path / "out", *arguments)
    assert result.exit_code == code and message in result.stderr


def test_refuses_sources_and_folders(folder: Path, tmp_path: Path) -> None:
    result = collect("--camera", folder, "--output", folder)
    assert result.exit_code == 1 and "other than the folder" in result.stderr
    result = collect("--camera", tmp_path / "gone", "--output", tmp_path / "out")
    assert result.exit_code == 1 and "found nothing at" in result.stderr
    (tmp_path / "file").touch()
    result = collect("--camera", folder, "--output", tmp_path / "file")
    assert result.exit_code == 1 and "cannot write into the folder" in result.stderr
    assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)


def test_messages_of_a_broker_ask_for_pictures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broker:
        """Two messages are waiting when somebody subscribes."""

        name = "mqtt://cell:1883"

        def __init__(self, config: Any, subscribe: dict[str, Any], report: Any) -> None:
            assert (config.host, config.port, config.topic) == ("cell", 1883, "edge-ad-collect")
            for _ in range(2):
                subscribe["edge-ad/trigger"](b"1")

        def send(self, topic: str, payload: str) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr("edge_ad_runtime.outputs.mqtt.MqttSender", Broker)
    options = ["--output", tmp_path / "out", "--count", 2, "--json"]
    mqtt = ["--trigger", "mqtt", "--mqtt", "mqtt://cell"]
    result = collect("--camera", folder, *options, *mqtt)
    assert result.exit_code == 0, result.output
    assert figures(result)["pictures"] == 2
    assert "together" in collect("--camera", folder, *options, "--trigger", "mqtt").stderr
    wrong = collect(
        "--camera", folder, *options, "--trigger", "mqtt", "--mqtt", "mqtt://cell:99999"
    )
    assert wrong.exit_code == 1 and "port" in wrong.stderr

    def unreachable(*_: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(Broker, "send", unreachable)
    lost = collect("--camera", folder, *options, *mqtt)
    assert lost.exit_code == 1 and "cannot reach the broker" in lost.stderr


def test_requests_by_http_ask_for_pictures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")
    command = [sys.executable, "-c", RUN, "collect", "--camera", f"left={folder}"]
    command += ["--output", str(tmp_path / "out"), "--count", "2", "--json"]
    with subprocess.Popen(
        [*command, "--trigger", "http", "--serve", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        said = process.stderr.readline()
        (url,) = re.findall(r"http://127.0.0.1:\d+/trigger", said)
        assert ask(url, '{"id": "part 1", "camera": "left"}') == (202, {"trigger": "part 1"})
        assert ask(url, '{"camera": "right"}')[0] == 400
        assert ask(url, "{}", kind="text/plain")[0] == 400
        assert ask(url, "")[0] == 202
        assert process.wait(60) == 0
        assert json.loads(process.stdout.read())["pictures"] == 2


def ask(url: str, body: str, kind: str = "application/json") -> tuple[int, Any]:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trigger", "http"], "--trigger http and --serve [HOST:]PORT belong together"),
        (["--serve", "8080"], "--trigger http and --serve [HOST:]PORT belong together"),
        (["--trigger", "http", "--serve", "x"], "expected --serve [HOST:]PORT, got 'x'"),
        (["--trigger", "http", "--serve", "99999"], "cannot use --serve: port"),
        (["--trigger", "http", "--serve", "0.0.0.0:0"], "set a token"),
    ],
)
def test_refuses_addresses(
    folder: Path, tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")
    monkeypatch.delenv("EDGE_AD_TOKEN", raising=False)
    result = collect("--camera", folder, "--output", tmp_path / "out", *options)
    assert result.exit_code in (1, 2) and message in result.stderr
