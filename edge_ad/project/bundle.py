"""What a device needs, in one ZIP: model file, configuration, steps in words, and wheels."""

import json
import os
import shlex
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.files import remove_leftovers, temporary_folder
from edge_ad_runtime.stream.config import parse_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_FILE = "line.toml"
STEPS_FILE = "README.txt"
WHEELS_FOLDER = "edge-ad-bundle"

_ON_GPU = ("cuda", "tensorrt")
"""Targets whose files the configuration must send to the GPU: `auto` never takes TensorRT."""

_JETSON = """\
    python3 -m venv --system-site-packages .venv
    .venv/bin/pip install --no-deps onnxruntime_gpu-*.whl edge_ad-*.whl
    .venv/bin/pip install click "numpy<2" packaging flatbuffers protobuf tomli \\
        starlette uvicorn prometheus-client
"""
"""The Jetson's own OpenCV, and an ONNX Runtime built for its GPU, must stay what they are.

Ubuntu's OpenCV was compiled for NumPy 1, and does not load beside NumPy 2.
"""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device as its configuration describes it.

    Attributes:
        camera: its name in verdicts.
        source: as for `edge-ad stream --camera`.
        port: of the live page; None: no page.
        target: what the model file was exported for, as for `edge-ad export --target`.
    """

    camera: str = "camera"
    source: str = "0"
    port: int | None = 8080
    target: str = "cpu"

    @property
    def extras(self) -> str:
        """The extras of `edge-ad` that it needs."""
        needed = "device-gpu" if self.target == "cuda" else "device"
        return needed if self.port is None else f"{needed},serve"


def stream_config(model: str, device: Device) -> str:
    """Return a configuration for `edge-ad stream`, ready to use, as TOML.

    Raises:
        ConfigError: the camera's name or source, or the port, cannot be used.
    """
    rows = [
        "# edge-ad stream --config " + CONFIG_FILE,
        f"model = {_quoted(model)}",
        'state_file = "state.json"   # keeps limits that people set on the page over a restart',
        *([f"device = {_quoted(device.target)}"] if device.target in _ON_GPU else []),
        "",
        "[[camera]]",
        f"name = {_quoted(device.camera)}",
        f"source = {_quoted(device.source)}",
        "",
        "[alarm]",
    ]
    if device.port is not None:
        rows += [
            "",
            "[serve]   # the live page; beyond the device itself only with a token",
            f"port = {device.port}",
        ]
    text = "\n".join(rows) + "\n"
    parse_config(tomllib.loads(text))
    return text


def _quoted(text: str) -> str:
    """Write a text as TOML does: as JSON, but that nothing printable is escaped, DEL is.

    Raises:
        ConfigError: it holds half a character, which no file can.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"expected text in UTF-8, got {text[:80]!a}") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def device_steps(model: str, device: Device) -> str:
    """Return what to do on the device, in words and commands."""
    on = f" --device {device.target}" if device.target in _ON_GPU else ""
    if device.target == "tensorrt":
        install, hint = _JETSON, "docs/jetson.md says which ONNX Runtime fits a Jetson.\n"
    else:
        packages = f"'edge-ad[{device.extras}]'"
        install = (
            "    python3 -m venv .venv\n"
            f"    .venv/bin/pip install --no-index --find-links {WHEELS_FOLDER} {packages}\n"
        )
        hint = f"Without the folder {WHEELS_FOLDER}, and with internet: pip install {packages}.\n"
    page = (
        ""
        if device.port is None
        else f"The live page is at http://127.0.0.1:{device.port} on the device itself.\n"
    )
    return (
        f"On the device, in this folder:\n\n{install}"
        f"    .venv/bin/edge-ad doctor --model {shlex.quote(model)} "
        f"--camera {shlex.quote(device.source)}{on}\n"
        f"    .venv/bin/edge-ad stream --config {CONFIG_FILE}\n\n{hint}{page}"
    )


def write_bundle(
    model: Path, target: Path, device: Device | None = None, wheels: Path | None = None
) -> None:
    """Write the ZIP; it is whole or not there.

    Args:
        model: an exported file.
        target: of the ZIP.
        device: what the configuration says, but for its target, which is that of the model; None:
            the first USB camera.
        wheels: the folder that `make bundle` wrote, for a device without internet; None: the device
            fetches its packages.

    Raises:
        ModelFileError: the model file cannot be used.
        ConfigError: the configuration cannot be used.
        DataError: a file cannot be read or written, or the wheels are those of another device.
    """
    if target.is_dir():
        raise DataError(f"expected the name of a ZIP file to write, got the folder {target}")
    info = Scorer(model, device="cpu").info  # proves that it can be used
    name = f"{info.category}-{info.method}.onnx"
    device = replace(device or Device(), target=info.target)
    if wheels and info.target == "cuda" and not any(wheels.glob("onnxruntime_gpu-*.whl")):
        raise DataError(
            f"{wheels} holds no packages for a device with an NVIDIA GPU: run `make bundle "
            f"BUNDLE_EXTRAS={device.extras}` again"
        )
    texts = {CONFIG_FILE: stream_config(name, device), STEPS_FILE: device_steps(name, device)}
    try:
        remove_leftovers(target.parent)
        with temporary_folder(target.parent) as folder:
            whole = folder / "bundle.zip"
            # Clocks of devices without a battery start in 1970, and ZIPs in 1980.
            with zipfile.ZipFile(whole, "w", strict_timestamps=False) as archive:
                archive.write(model, name)
                for file, text in texts.items():
                    (folder / file).write_text(text, encoding="utf-8")
                    archive.write(folder / file, file)
                for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
                    archive.write(wheel, f"{WHEELS_FOLDER}/{wheel.name}")
            os.replace(whole, target)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}: choose another folder, or "
            "change its permissions"
        ) from error
