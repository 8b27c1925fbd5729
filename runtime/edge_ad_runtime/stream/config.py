"""The whole configuration of a stream, as one document: TOML, or the command line's options."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad_runtime.cameras import CameraSettings
from edge_ad_runtime.cameras.feed import Recovery
from edge_ad_runtime.config_table import ADDRESS, VARIABLE, Text, inline, read_table, setting
from edge_ad_runtime.errors import ConfigError, redact
from edge_ad_runtime.model.accelerator import AcceleratorConfig
from edge_ad_runtime.model.session import DEVICES
from edge_ad_runtime.outputs.gpio import DigitalConfig
from edge_ad_runtime.outputs.json_file import JsonConfig
from edge_ad_runtime.outputs.mqtt import TOPIC, MqttConfig
from edge_ad_runtime.outputs.pictures import PicturesConfig
from edge_ad_runtime.outputs.webhook import WebhookConfig
from edge_ad_runtime.stream.watchers import AlarmRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TRIGGER_MODES = ("free", "stdin", "http", "mqtt")
_LONGEST_FILE = 1_000_000
_LONGEST_NAME = 200
_NAME = Text(r"[^\x00-\x1f\x7f]{1,200}", "a name of up to 200 printable characters")
_SOURCE = Text(r"(?![0-9]{5,}$)[^\0]+", "an index up to 9999, a path or a URL")
_HOST_NAME = Text(r"[^\s/:\0]{1,253}", "an array of names such as 'line1.local', without a port")


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """One camera.

    Attributes:
        name: as it appears in results and events.
        source: what the user wrote, as for `open_source`.
        model: the model file that scores it.
        watch: of a folder, the pictures that arrive.
        every: only every N-th frame is scored.
        settings: how it is opened.
    """

    name: str = setting(text=_NAME)
    source: str = setting(text=_SOURCE)
    model: Path = setting(expected="a model file, here or for all cameras")
    watch: bool = setting(False)
    every: int = setting(1, low=1, high=1_000_000)
    settings: CameraSettings = inline(CameraSettings)


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """What makes a verdict.

    Attributes:
        mode: `free` (every frame), or on demand by a line of `stdin`, an `http` POST to the live
            page's server, or a message by `mqtt`.
        timeout: seconds after which a trigger without a frame has failed.
        topic: of the MQTT messages.
    """

    mode: str = setting("free", choices=TRIGGER_MODES)
    timeout: float = setting(10.0, low=0.1, high=86_400)
    topic: str = setting("edge-ad/trigger", text=TOPIC)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """The live page.

    Attributes:
        host: the address on which it listens; beyond 127.0.0.1 only with a token.
        port: 0: a free one.
        token_env: the environment variable that holds the token.
        names: further names by which browsers may call this device, such as `line1.local`.
        marks: the folder for parts whose verdict somebody calls wrong.
    """

    host: str = setting("127.0.0.1", text=ADDRESS)
    port: int = setting(8080, low=0, high=65_535)
    token_env: str = setting("EDGE_AD_TOKEN", text=VARIABLE)
    names: tuple[str, ...] = setting((), text=_HOST_NAME, expected=_HOST_NAME.words)
    marks: Path = setting(Path("edge-ad-marks"))


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """All outputs; None: not wanted. `stdout`: lines of JSON on the standard output."""

    stdout: bool = setting(True)
    json: JsonConfig | None = setting(None)
    pictures: PicturesConfig | None = setting(None)
    mqtt: MqttConfig | None = setting(None)
    webhook: WebhookConfig | None = setting(None)
    digital: DigitalConfig | None = setting(None)
    serve: ServeConfig | None = setting(None)


@dataclass(frozen=True, kw_only=True)
class SignatureConfig:
    """The signature that every model file must have.

    Attributes:
        key: file of the public key, PEM.
        least_version: a file with a lower signed version is refused.
        state_file: keeps the highest version that was accepted, so that an older file is refused
            after a restart, too.
    """

    key: Path = setting()
    least_version: int = setting(0, low=0, high=2**53)
    state_file: Path = setting(Path("edge-ad-accepted.json"))


@dataclass(frozen=True, kw_only=True)
class InstallConfig:
    """What `edge-ad install` needs of a running stream.

    Attributes:
        socket: a Unix socket, which the stream makes; only its user and root can connect.
    """

    socket: Path = setting()


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """A whole stream.

    Attributes:
        cameras: at least one, with different names.
        model: the model file of the cameras that state none.
        device: for all models.
        accelerator: how a GPU is used.
        threads: CPU threads for one inference.
        threshold: in place of the model files' own.
        min_region_area: share of the picture, 0..1, from which a region of a verdict is reported.
        max_frames: how many frames to score before the stream ends.
        recovery: patience with lost cameras.
        alarm: when it goes on and off; None: no alarm.
        trigger: what makes a verdict.
        outputs: where verdicts and events go.
        signature: what every model file must be signed with; None: none is needed.
        state_file: keeps the limits that people set over a restart; None: they end with the stream.
        install: how `edge-ad install` reaches the stream; None: it does not.
    """

    cameras: tuple[CameraConfig, ...] = setting(
        key="camera", expected="an array of tables, [[camera]] with double brackets for each camera"
    )
    model: Path | None = setting(None)
    device: str = setting("auto", choices=DEVICES)
    accelerator: AcceleratorConfig = setting(AcceleratorConfig())
    threads: int | None = setting(None, low=1, high=256)
    threshold: float | None = setting(None, low=-1e30, high=1e30)
    min_region_area: float = setting(0.0, low=0, high=0.999)
    max_frames: int | None = setting(None, low=1, high=10**12)
    recovery: Recovery = inline(Recovery)
    alarm: AlarmRule | None = setting(None)
    trigger: TriggerConfig = setting(TriggerConfig())
    outputs: OutputConfig = inline(OutputConfig)
    signature: SignatureConfig | None = setting(None)
    state_file: Path | None = setting(None)
    install: InstallConfig | None = setting(None)


def read_config(path: Path | str) -> StreamConfig:
    """Read a TOML file, as `edge-ad stream --config` does.

    Raises:
        ConfigError: it cannot be read, or with every mistake in it, one per line.
    """
    return parse_config(read_document(Path(path)))


def read_document(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_FILE + 1)
        if len(data) > _LONGEST_FILE:
            raise ConfigError(f"the configuration {path} is larger than {_LONGEST_FILE} bytes")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}: check the path"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"the configuration {path} is nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error


def parse_config(document: Mapping[str, Any]) -> StreamConfig:
    """Validate a whole document.

    Raises:
        ConfigError: with every mistake in it, one per line.
    """
    errors: list[str] = []
    document = _with_camera_defaults(document)
    config = read_table(StreamConfig, document, errors)
    errors += _contradictions(document)
    if config is None or errors:
        raise ConfigError("\n".join(errors))
    return config


def _with_camera_defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """Give each camera the name and the model that it does not state itself."""
    completed = dict(document)
    defaults = {"model": completed["model"]} if "model" in completed else {}
    cameras = completed.get("camera", [])
    if isinstance(cameras, list):
        completed["camera"] = [
            _completed(camera, defaults, index) if isinstance(camera, Mapping) else camera
            for index, camera in enumerate(cameras)
        ]
    return completed


def _completed(
    camera: Mapping[str, Any], defaults: Mapping[str, Any], index: int
) -> dict[str, Any]:
    source = camera.get("source")
    if isinstance(source, int) and not isinstance(source, bool) and source >= 0:
        source = str(source)  # the index of a camera, as in `open_source`
        camera = {**camera, "source": source}
    name = default_name(source) if isinstance(source, str) and source else str(index)
    return {**defaults, "name": name, **camera}


def default_name(source: str) -> str:
    """Return what a camera is called in results and events unless it is given a name."""
    name = redact(source)
    return "".join(letter if letter.isprintable() else " " for letter in name)[:_LONGEST_NAME]


def _contradictions(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what does not fit together, whatever else is wrong."""

    def value(table: str, key: str) -> object:
        found = document.get(table)
        return found.get(key) if isinstance(found, Mapping) else None

    cameras = document.get("camera")
    if cameras == [] or "camera" not in document:
        yield "expected at least one camera, [[camera]] with a source: found none"
    names = [
        camera["name"]
        for camera in (cameras if isinstance(cameras, list) else [])
        if isinstance(camera, Mapping) and isinstance(camera["name"], str)
    ]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield (
            f"two cameras are called {name!r}: give them names, --camera left=... on the command "
            "line or name = ... in the file"
        )
    files = [
        os.path.normpath(path)
        for path in (
            value("json", "path"),
            *(
                value(table, "spool") or kind.spool
                for table, kind in (("mqtt", MqttConfig), ("webhook", WebhookConfig))
                if table in document
            ),
        )
        if isinstance(path, (str, Path))
    ]
    for path in sorted({path for path in files if files.count(path) > 1}):
        yield f"two outputs write to {path!r}: give each a file of its own"
    if value("trigger", "mode") == "http" and "serve" not in document:
        yield "trigger.mode: 'http' needs the live page's server, [serve] or --serve"
    if value("trigger", "mode") == "mqtt" and "mqtt" not in document:
        yield "trigger.mode: 'mqtt' needs a broker, [mqtt] or --mqtt"
    if value("digital", "on") == "alarm" and "alarm" not in document:
        yield "digital.on: 'alarm' needs the rule of an alarm, [alarm] or --alarm"
