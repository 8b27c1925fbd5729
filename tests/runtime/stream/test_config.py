"""The configuration: every mistake at once, options over the file, and what it makes."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad.cli.stream_options import merged, to_document
from edge_ad_runtime import DataError
from edge_ad_runtime.stream.config import StreamConfig, parse_config, read_document

WHOLE = """
model = "a.onnx"
device = "cpu"
threads = 2
threshold = 1.5
stall_timeout = 3
[[camera]]
name = "left"
source = "rtsp://host/left"
every = 2
[[camera]]
name = "right"
source = "0"
model = "b.onnx"
width = 1920
height = 1080
fourcc = "MJPG"
exposure = 50
[alarm]
frames = 3
window = 5
min_area = 0.001
[trigger]
mode = "mqtt"
[json]
path = "verdicts.jsonl"
[pictures]
folder = "kept"
max_mb = 100
[mqtt]
host = "broker"
tls = true
[webhook]
url = "https://host/hook"
[digital]
line = 4
on = "alarm"
[serve]
port = 9000
"""


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "line1.toml"
    path.write_text(WHOLE)
    config = parse_config(read_document(path))
    left, right = config.cameras
    assert (left.name, left.model, left.every) == ("left", Path("a.onnx"), 2)
    assert (right.model, right.settings.width) == (Path("b.onnx"), 1920)
    assert config.recovery.stall_timeout == 3
    outputs = config.outputs
    assert outputs.mqtt is not None and outputs.mqtt.port == 8883
    assert outputs.pictures is not None and outputs.pictures.retention.max_mb == 100
    assert outputs.digital is not None and outputs.serve is not None


def test_every_mistake_at_once() -> None:
    with pytest.raises(DataError) as caught:
        parse_config(
            {
                "model": "a.onnx",
                "devise": "cpu",
                "threads": 0,
                "threshold": True,
                "camera": [{"source": "0", "every": "two"}, {"source": "0"}, {"fourcc": "MJPEG"}],
                "alarm": {"frames": 5, "window": 3},
                "trigger": {"mode": "http"},
                "mqtt": {"port": 99_999},
                "json": {},
                "webhook": {"url": "ftp://host"},
                "serve": 8080,
            }
        )
    mistakes = str(caught.value).splitlines()
    for start in (
        "devise: there is no such setting, did you mean 'device'?",
        "threads: expected a whole number from 1 to 256, got 0",
        "threshold: expected a number, got True",
        "camera[0].every: expected a whole number, got 'two'",
        "camera[2].source: expected an index up to 9999, a path or a URL, got nothing",
        "camera[2].fourcc: expected four letters such as 'MJPG', got 'MJPEG'",
        "two cameras are called '0'",
        "alarm: expected an alarm of M out of N",
        "mqtt.host: expected the broker's name",
        "mqtt.port: expected a whole number from 1 to 65535",
        "json.path: expected the path of a file",
        "webhook.url: expected http://",
        "serve: expected a table, [serve], got 8080",
    ):
        assert any(mistake.startswith(start) for mistake in mistakes), (start, mistakes)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "at least one camera"),
        ({"camera": [{"source": "0"}]}, "camera\\[0\\].model"),
        ({"model": "a", "camera": {"source": "0"}}, "\\[\\[camera\\]\\] with double brackets"),
    ],
)
def test_refuses(document: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_config(document)


def test_the_index_of_a_camera_may_be_a_number() -> None:
    (camera,) = parse_config({"model": "a", "camera": [{"source": 0}]}).cameras
    assert (camera.source, camera.name) == ("0", "0")
    for wrong in (-1, True, 12345):
        with pytest.raises(DataError, match=r"camera\[0\].source: expected an index"):
            parse_config({"model": "a", "camera": [{"source": wrong}]})


def test_files_that_are_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the configuration"):
        read_document(tmp_path / "missing.toml")
    (tmp_path / "a.toml").write_text("a = = 1")
    with pytest.raises(DataError, match="is not TOML"):
        read_document(tmp_path / "a.toml")


def test_options_say_the_same_as_a_file() -> None:
    document = to_document(
        {
            "cameras": ("left=rtsp://host/a?b=c", "/dev/video0"),
            "models": ("a.onnx", "b.onnx"),
            "device": "cpu",
            "every": 3,
            "alarm": "3/5",
            "mqtt": "mqtts://me@broker:1234/hall/cell",
            "serve": "0.0.0.0:8000",
            "output": "kept",
        }
    )
    config = parse_config(document)
    left, device = config.cameras
    assert (left.name, left.source, left.model) == ("left", "rtsp://host/a?b=c", Path("a.onnx"))
    assert (device.name, device.model, device.every) == ("/dev/video0", Path("b.onnx"), 3)
    mqtt = config.outputs.mqtt
    assert mqtt is not None
    assert (mqtt.host, mqtt.port, mqtt.username, mqtt.topic, mqtt.tls) == (
        "broker",
        1234,
        "me",
        "hall/cell",
        True,
    )
    assert config.outputs.serve is not None and config.outputs.serve.host == "0.0.0.0"


@pytest.mark.parametrize(
    "options",
    [
        {"alarm": "3"},
        {"serve": "here"},
        {"mqtt": "mqtt://me:secret@broker"},
        {"cameras": ("0", "1", "2"), "models": ("a", "b")},
    ],
)
def test_options_that_cannot_be_understood(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected") as caught:
        to_document(options)
    assert "secret" not in str(caught.value)


def test_options_win_over_the_file() -> None:
    file = {"threshold": 1.0, "serve": {"port": 1, "host": "::1"}, "camera": [{"source": "0"}]}
    assert merged(file, {"threshold": 2.0, "serve": {"port": 2}}) == {
        "threshold": 2.0,
        "serve": {"port": 2, "host": "::1"},
        "camera": [{"source": "0"}],
    }


def test_check(tmp_path: Path) -> None:
    path = tmp_path / "line1.toml"
    path.write_text(WHOLE)
    done = CliRunner().invoke(main, ["stream", "--config", str(path), "--check"])
    assert (done.exit_code, done.stdout) == (0, "2 cameras, no mistakes\n")
    assert done.stderr.count("a.onnx is not here yet") == 1
    path.write_text(WHOLE.replace("threads = 2", "threads = -1\nthresold = 3"))
    done = CliRunner().invoke(main, ["stream", "--config", str(path), "--check"])
    assert done.exit_code == 1
    assert "threads:" in done.stderr and "did you mean 'threshold'" in done.stderr
    assert CliRunner().invoke(main, ["stream"]).exit_code == 2


def test_two_models_two_cameras_one_config(
    write_model: Callable[..., Path], pictures: Path, tmp_path: Path
) -> None:
    first, second = write_model("a.onnx"), write_model("b.onnx", divisor=2.0)
    path = tmp_path / "line1.toml"
    path.write_text(
        f"""
        [[camera]]
        name = "left"
        source = "{pictures}"
        model = "{first}"
        [[camera]]
        name = "right"
        source = "{pictures}"
        model = "{second}"
        [pictures]
        folder = "{tmp_path}/kept"
        [alarm]
        """
    )
    done = CliRunner().invoke(main, ["stream", "--config", str(path)])
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    verdicts = [line for line in lines if "event" not in line]
    for name, scores in (("left", [0, 50, 99, 150, 200]), ("right", [0, 25, 49.5, 75, 100])):
        assert [line["score"] for line in verdicts if line["camera"] == name] == scores
    assert {line["event"] for line in lines if "event" in line} == {"alarm on"}
    assert sorted(item.name for item in (tmp_path / "kept").iterdir()) == ["left", "right"]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("", "threads = 100_000"),
        ("", "threshold = nan"),
        ("", "max_frames = 0x" + "f" * 5000),
        ("", "stall_timeout = 1e10"),
        ("", "threads.a.a.a.a.a.a.a = 1"),
        ("", "model = 'a\\u0000b'"),
        ("camera", "source = '99999999999'"),
        ("camera", "open_timeout = 1e10"),
        ("camera", "name = 'a\\nb'"),
        ("camera", "every = 10_000_000"),
        ("alarm", "window = 100000000000000000000"),
        ("trigger", "topic = 'cell/#'"),
        ("trigger", "timeout = inf"),
        ("json", "max_mb = 1e308"),
        ("json", "path = ''"),
        ("json", "path = 'a\\u0000b'"),
        ("pictures", "max_days = 1e300"),
        ("mqtt", "host = ''"),
        ("mqtt", "host = 'a b'"),
        ("mqtt", "topic = 'a/+/b'"),
        ("mqtt", "topic = '$SYS/a'"),
        ("webhook", "url = 'http://'"),
        ("webhook", "url = 'http://host:99999/'"),
        ("webhook", "url = 'http://[::1/'"),
        ("webhook", "token_env = 'A=B'"),
        ("digital", "line = -1"),
        ("serve", "port = 65536"),
        ("serve", "names = 'line1.local'"),
        ("serve", "names = ['line1.local:8080']"),
    ],
)
def test_every_setting_has_a_range(tmp_path: Path, table: str, line: str) -> None:
    good = {"camera": {"source": "'0'", "model": "'a.onnx'"}}
    good |= {"json": {"path": "'a'"}, "pictures": {"folder": "'a'"}, "mqtt": {"host": "'a'"}}
    good |= {"webhook": {"url": "'http://a'"}, "digital": {"line": "1"}}
    key, _, value = line.replace("'", '"').partition(" = ")
    settings = {name: good.get(name, {}) for name in ("camera", table) if name}
    text = f"{key} = {value}\n" if not table else ""
    for name, lines in settings.items():
        lines = lines | ({key: value} if name == table else {})
        text += "[[camera]]\n" if name == "camera" else f"[{name}]\n"
        text += "".join(f"{each} = {lines[each]}\n" for each in lines)
    path = tmp_path / "line1.toml"
    path.write_text(text)
    done = CliRunner().invoke(main, ["stream", "--config", str(path), "--check"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    place = f"{table}{'[0]' if table == 'camera' else ''}." if table else ""
    assert f"{place}{key.partition('.')[0]}: expected" in done.stderr or "99999" in line
    assert len(done.stderr) < 400


def test_no_password_is_repeated() -> None:
    document = {
        "model": "a.onnx",
        "camera": [{"source": ["rtsp://me:secret@host"]}],
        "webhook": {"url": "htps://me:secret@host"},
    }
    with pytest.raises(DataError, match="webhook") as caught:
        parse_config(document)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--serve", "rtsp:/me:Zq7@host/a"],
        ["--trigger", "//me:Zq7@host/a"],
        ["--threads", "rtsp://me:Zq7@host/a"],
        ["rtsp://me:Zq7@host/a"],
        ["--config", "line.toml"],
    ],
)
def test_no_password_in_a_wrong_place_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("line.toml").write_text(
        'model = "a.onnx"\n["rtsp://me:Zq7@host/a"]\n[webhook]\n"me:Zq7@host" = 1\n'
    )
    done = CliRunner().invoke(main, ["stream", "--check", "--camera", "0", *arguments])
    assert done.exit_code in (1, 2) and "***@" in done.output and "Zq7" not in done.output


def test_an_alarm_of_so_many_frames_in_a_row_needs_no_window() -> None:
    document = {"model": "a", "camera": [{"source": "0"}], "alarm": {"frames": 3}}
    alarm = parse_config(document).alarm
    assert alarm is not None and alarm.window == 3


def test_further_names_of_the_device() -> None:
    names = ["line1.local", "line1"]
    document = {"model": "a", "camera": [{"source": "0"}], "serve": {"names": names}}
    serve = parse_config(document).outputs.serve
    assert serve is not None and serve.names == ("line1.local", "line1")
    options = to_document({"serve": "8080", "serve_names": ("line1.local",)})
    assert options["serve"] == {"port": 8080, "names": ["line1.local"]}


def test_files_that_no_configuration_is(tmp_path: Path) -> None:
    path = tmp_path / "line1.toml"
    for data, message in (
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is not TOML"),
        (b"#" * 2_000_000, "larger than"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            read_document(path)


def numbers(kind: type) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the settings of a dataclass that are numbers, and those of its tables."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        for hint in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(hint) and isinstance(hint, type):
                yield from numbers(hint)
            elif hint in (int, float) and field.metadata:
                yield f"{kind.__name__}.{field.name}", field.metadata


def test_no_number_is_without_a_range() -> None:
    found = dict(numbers(StreamConfig))
    assert len(found) > 25
    assert [name for name, setting in found.items() if not setting["low"] < setting["high"]] == []


def test_two_outputs_never_share_a_file() -> None:
    document: dict[str, Any] = {"model": "a", "camera": [{"source": "0"}]}
    document |= {"json": {"path": "./a"}, "webhook": {"url": "http://a", "spool": "a"}}
    with pytest.raises(DataError, match="two outputs write to 'a'"):
        parse_config(document)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000",
        "https://[::1]:443/a?b=c&d=e",
        "http://me:secret@10.0.0.5/hook",
        "https://mes.plant-3.example/" + "path/" * 500,
    ],
)
def test_urls_of_webhooks(url: str) -> None:
    document = {"model": "a", "camera": [{"source": "0"}], "webhook": {"url": url}}
    webhook = parse_config(document).outputs.webhook
    assert webhook is not None and webhook.url == url
