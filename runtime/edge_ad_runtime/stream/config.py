"""Everything that a stream can be told, as one document: TOML, or the command line's options."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_ad_runtime.cameras import CameraSettings
from edge_ad_runtime.cameras.feed import Recovery
from edge_ad_runtime.config_table import Table
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.session import DEVICES
from edge_ad_runtime.outputs.output_config import OutputConfig, read_outputs
from edge_ad_runtime.redact import redact
from edge_ad_runtime.stream.alarm import AlarmRule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TRIGGER_MODES = ("free", "stdin", "http", "mqtt")


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """One camera.

    Attributes:
        name: stands in results and events.
        source: what the user wrote, as for `open_source`.
        model: the model file that scores it.
        watch: of a folder, the pictures that arrive.
        every: of so many frames only the first one is scored.
        settings: how it is opened.
    """

    name: str
    source: str
    model: Path
    watch: bool = False
    every: int = 1
    settings: CameraSettings = CameraSettings()  # noqa: RUF009  (frozen)


@dataclass(frozen=True, kw_only=True)
class TriggerConfig:
    """What makes a verdict.

    Attributes:
        mode: `free` (every frame), or on demand by a line of `stdin`, an `http` POST to the live
            page's server, or a message by `mqtt`.
        timeout: seconds after which a trigger without a frame has failed.
        topic: of the MQTT messages.
    """

    mode: str = "free"
    timeout: float = 10.0
    topic: str = "edge-ad/trigger"


@dataclass(frozen=True, kw_only=True)
class LineConfig:
    """A whole stream.

    Attributes:
        cameras: at least one, with different names.
        device: for all models.
        threads: CPU threads for one inference.
        threshold: in place of the model files' own.
        max_frames: end after so many.
        recovery: patience with lost cameras.
        alarm: when it goes on and off; None: no alarm.
        trigger: what makes a verdict.
        outputs: where verdicts and events go.
    """

    cameras: tuple[CameraConfig, ...]
    device: str = "auto"
    threads: int | None = None
    threshold: float | None = None
    max_frames: int | None = None
    recovery: Recovery = field(default_factory=Recovery)
    alarm: AlarmRule | None = None
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)


def read_document(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        DataError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read the configuration {path}: {error.strerror}: check the path"
        ) from error
    except ValueError as error:
        raise DataError(f"the configuration {path} is not TOML: {error}") from error


def parse_config(document: Mapping[str, Any]) -> LineConfig:
    """Validate a whole document.

    Raises:
        DataError: with every mistake in it, one a line.
    """
    errors: list[str] = []
    top = Table(document, "", errors)
    default_model = top.path("model")
    cameras = [
        _camera(table, index, default_model) for index, table in enumerate(top.tables("camera"))
    ]
    found = [camera for camera in cameras if camera is not None]
    if not cameras and not errors:
        errors.append("expected at least one camera, [[camera]] with a source: found none")
    _refuse_same_names(found, errors)
    config = LineConfig(
        cameras=tuple(found),
        device=top.text("device", "auto", DEVICES),
        threads=top.whole("threads", None, 1),
        threshold=top.number("threshold", None, float("-inf")),
        max_frames=top.whole("max_frames", None, 1),
        recovery=_recovery(top),
        alarm=_alarm(top),
        trigger=_trigger(top),
        outputs=read_outputs(top),
    )
    top.finish()
    _refuse_contradictions(config, errors)
    if errors:
        raise DataError("\n".join(errors))
    return config


def _camera(table: Table, index: int, default_model: Path | None) -> CameraConfig | None:
    source = table.text("source", None)
    if source is None:
        table.wrong("source", "an index, path or URL", None)
    model = table.path("model") or default_model
    if model is None:
        table.wrong("model", "a model file, here or for all cameras", None)
    settings = table.build(
        lambda: CameraSettings(
            width=table.whole("width", None, 1),
            height=table.whole("height", None, 1),
            fps=table.number("fps", None, 0),
            fourcc=table.text("fourcc", None),
            exposure=table.number("exposure", None, float("-inf")),
            open_timeout=table.number("open_timeout", 5.0, 0.1),
            read_timeout=table.number("read_timeout", 5.0, 0.1),
        )
    )
    name = table.text("name", redact(source or str(index)))
    watch, every = table.flag("watch", False), table.whole("every", 1, 1)
    table.finish()
    if source is None or model is None or settings is None:
        return None
    return CameraConfig(
        name=name, source=source, model=model, watch=watch, every=every, settings=settings
    )


def _recovery(top: Table) -> Recovery:
    default = Recovery()
    made = top.build(
        lambda: Recovery(
            stall_timeout=top.number("stall_timeout", default.stall_timeout, 0),
            freeze_check=top.flag("freeze_check", default.freeze_check),
            first_delay=top.number("first_delay", default.first_delay, 0.01),
            longest_delay=top.number("longest_delay", default.longest_delay, 0.01),
        )
    )
    return made or default


def _alarm(top: Table) -> AlarmRule | None:
    table = top.table("alarm")
    if table is None:
        return None
    frames = table.whole("frames", 1, 1)
    rule = table.build(
        lambda: AlarmRule(
            frames=frames,
            window=table.whole("window", frames, 1),
            clear_frames=table.whole("clear_frames", 1, 1),
            clear_ratio=table.number("clear_ratio", 1.0, 0, 1),
            min_area=table.number("min_area", 0.0, 0, 1),
        )
    )
    table.finish()
    return rule


def _trigger(top: Table) -> TriggerConfig:
    table = top.table("trigger")
    if table is None:
        return TriggerConfig()
    config = TriggerConfig(
        mode=table.text("mode", "free", TRIGGER_MODES),
        timeout=table.number("timeout", 10.0, 0.1),
        topic=table.text("topic", TriggerConfig.topic),
    )
    table.finish()
    return config


def _refuse_same_names(cameras: list[CameraConfig], errors: list[str]) -> None:
    names = [camera.name for camera in cameras]
    for name in sorted({name for name in names if names.count(name) > 1}):
        errors.append(
            f"two cameras are called {name!r}: give them names, --camera left=... on the command "
            "line or name = ... in the file"
        )


def _refuse_contradictions(config: LineConfig, errors: list[str]) -> None:
    if config.trigger.mode == "http" and config.outputs.serve is None:
        errors.append("trigger.mode: 'http' needs the live page's server, [serve]")
    if config.trigger.mode == "mqtt" and config.outputs.mqtt is None:
        errors.append("trigger.mode: 'mqtt' needs a broker, [mqtt]")
    digital = config.outputs.digital
    if digital is not None and digital.on == "alarm" and config.alarm is None:
        errors.append("digital.on: 'alarm' needs the rule of an alarm, [alarm]")
