"""The options of `edge-ad stream`, as the same document that a TOML file holds."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from edge_ad.cli.options import (
    FiniteRange,
    device_option,
    min_region_area_option,
    threads_option,
    threshold_option,
)
from edge_ad_runtime.errors import ConfigError, redact

F = TypeVar("F", bound=Callable[..., Any])

_NAMED = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)
_MQTT = re.compile(r"(mqtts?)://(?:([^@/]+)@)?([^:/@]+)(?::([0-9]{1,5}))?(?:/(.+))?")
_PER_CAMERA = ("width", "height", "fps", "fourcc", "exposure", "watch", "every")
_TOP = ("device", "threads", "threshold", "min_region_area", "max_frames", "stall_timeout")

_OPTIONS = (
    click.option(
        "--camera",
        "cameras",
        multiple=True,
        metavar="[NAME=]SRC",
        help="An index, device path, video file, picture, folder, glob of pictures, URL, GStreamer "
        "pipeline, or PLUGIN:TEXT. Repeat the option for more cameras.",
    ),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="FILE",
        envvar="EDGE_AD_MODEL",
        show_envvar=True,
        help="The model file, once for all cameras or once for each. Default: the newest exported "
        "file below ./results.",
    ),
    click.option(
        "--require-signature",
        "signature_key",
        metavar="KEY",
        help="Refuse model files without a valid signature for this public key (PEM), and files "
        "signed before the one that runs.",
    ),
    click.option(
        "--install-socket",
        metavar="PATH",
        help="Create a Unix socket through which `edge-ad install` tries and replaces models.",
    ),
    device_option,
    threads_option,
    threshold_option,
    min_region_area_option,
    click.option("--output", metavar="FOLDER", help="Keep pictures with heat maps in this folder."),
    click.option(
        "--keep",
        type=click.Choice(["good", "anomalous", "all"]),
        help="Which pictures to keep. Default: anomalous.",
    ),
    click.option(
        "--json-file",
        metavar="FILE",
        help="Also write the JSON lines to this file, which is rotated.",
    ),
    click.option("--mqtt", metavar="URL", help="Publish to mqtt[s]://[USER@]HOST[:PORT][/TOPIC]."),
    click.option("--webhook", metavar="URL", help="POST every verdict to this URL."),
    click.option("--serve", metavar="[HOST:]PORT", help="Serve the live page at this address."),
    click.option(
        "--serve-name",
        "serve_names",
        multiple=True,
        metavar="NAME",
        help="Another name by which browsers may call this device, such as line1.local. Repeat the "
        "option for more names.",
    ),
    click.option(
        "--alarm", metavar="M/N", help="Raise an alarm when M of the last N frames are anomalous."
    ),
    click.option(
        "--trigger",
        type=click.Choice(["free", "stdin", "http", "mqtt"]),
        help="What triggers a verdict. Default: free, which scores every frame.",
    ),
    click.option("--every", type=click.IntRange(min=1), help="Score only every N-th frame."),
    click.option("--watch", is_flag=True, default=None, help="Watch folders for new pictures."),
    click.option("--max-frames", type=click.IntRange(min=1), help="End after this many frames."),
    click.option(
        "--stall-timeout",
        type=FiniteRange(min=0),
        help="Seconds without a new frame after which a camera counts as lost. Default: 5; 0 means "
        "never.",
    ),
    click.option("--width", type=click.IntRange(min=1), help="USB cameras: width, pixels."),
    click.option("--height", type=click.IntRange(min=1), help="USB cameras: height, pixels."),
    click.option("--fps", type=float, help="USB cameras: frames per second."),
    click.option("--fourcc", help="USB cameras: pixel format, such as MJPG."),
    click.option(
        "--exposure", type=float, help="USB cameras: fixed exposure, in the driver's unit."
    ),
)


def stream_options(command: F) -> F:
    """Give a command all of these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def to_document(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user wrote as the same document that a TOML file holds.

    Raises:
        ConfigError: an option cannot be understood.
    """
    given = {key: value for key, value in options.items() if value is not None}
    document = {key: given[key] for key in _TOP if key in given}
    if document.get("device") == "auto":
        del document["device"]
    cameras = _cameras(given)
    if cameras:
        document["camera"] = cameras
    elif given.get("models"):
        document["model"] = given["models"][0]
    if "output" in given:
        document["pictures"] = {"folder": given["output"]}
    if "keep" in given:
        document.setdefault("pictures", {})["keep"] = given["keep"]
    if "json_file" in given:
        document["json"] = {"path": given["json_file"]}
    if "webhook" in given:
        document["webhook"] = {"url": given["webhook"]}
    if "signature_key" in given:
        document["signature"] = {"key": given["signature_key"]}
    if "install_socket" in given:
        document["install"] = {"socket": given["install_socket"]}
    if "trigger" in given:
        document["trigger"] = {"mode": given["trigger"]}
    for key, parse in (("mqtt", mqtt_fields), ("serve", serve_fields), ("alarm", _alarm)):
        if key in given:
            document[key] = parse(given[key])
    if given.get("serve_names"):
        document.setdefault("serve", {})["names"] = list(given["serve_names"])
    return document


def merged(file: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the command line over the file: single values win, cameras replace cameras."""
    document = dict(file)
    for key, value in options.items():
        below = document.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            document[key] = below | value
        else:
            document[key] = value
    return document


def split_name(spec: str) -> tuple[str, str]:
    """Split `[NAME=]SRC` into the name, which may be empty, and the source."""
    named = _NAMED.fullmatch(spec)
    return (named[1], named[2]) if named else ("", spec)


def _cameras(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    specs, models = given.get("cameras", ()), given.get("models", ())
    if specs and len(models) > 1 and len(models) != len(specs):
        raise ConfigError(
            f"expected --model once, or once for each of the cameras, which are {len(specs)}; "
            f"got it {len(models)} times"
        )
    found = []
    for index, spec in enumerate(specs):
        name, source = split_name(spec)
        camera = {"source": source, "name": name} if name else {"source": source}
        camera.update({key: given[key] for key in _PER_CAMERA if key in given})
        if models:
            camera["model"] = models[index] if len(models) > 1 else models[0]
        found.append(camera)
    return found


def mqtt_fields(text: str) -> dict[str, Any]:
    """Read `--mqtt` into the fields of an `MqttConfig`.

    Raises:
        ConfigError: it is not such a URL.
    """
    match = _MQTT.fullmatch(text)
    if match is None or (match[2] is not None and ":" in match[2]):
        raise ConfigError(
            "expected --mqtt mqtt[s]://[USER@]HOST[:PORT][/TOPIC] without a password, which "
            "belongs in the environment variable EDGE_AD_MQTT_PASSWORD"
        )
    scheme, user, host, port, topic = match.groups()
    fields = {"username": user, "host": host, "port": port and int(port), "topic": topic}
    return {"tls": scheme == "mqtts"} | {key: value for key, value in fields.items() if value}


def serve_fields(text: str) -> dict[str, Any]:
    """Read `--serve` into the fields of a `ServeConfig`.

    Raises:
        ConfigError: it is not such an address.
    """
    host, _, port = text.rpartition(":")
    if re.fullmatch("[0-9]{1,5}", port) is None:
        raise ConfigError(f"expected --serve [HOST:]PORT, got {redact(text)!r}")
    return {"port": int(port)} | ({"host": host.strip("[]")} if host else {})


def _alarm(text: str) -> dict[str, Any]:
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None:
        raise ConfigError(f"expected --alarm M/N such as 3/5, got {text!r}")
    return {"frames": int(match[1]), "window": int(match[2])}
