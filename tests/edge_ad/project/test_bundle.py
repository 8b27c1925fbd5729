"""The bundle for a device: names in any script, clocks of any year, folders of any neighbour."""

import os
import zipfile
from pathlib import Path

import pytest

from edge_ad.project.bundle import (
    CONFIG_FILE,
    Device,
    device_steps,
    stream_config,
    write_bundle,
)
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.stream.config import parse_config, read_document

MODEL = next(Path(__file__).parents[2].glob("golden/padim/*.onnx"))


@pytest.mark.parametrize("name", ["\U0001f600", 'a"b\\c', "caf\u00e9", "\u30ab\u30e1\u30e9"])
def test_a_camera_may_be_called_anything(tmp_path: Path, name: str) -> None:
    path = tmp_path / CONFIG_FILE
    path.write_text(stream_config("m.onnx", Device(camera=name, source=name)), encoding="utf-8")
    (camera,) = parse_config(read_document(path)).cameras
    assert (camera.name, camera.source) == (name, name)


@pytest.mark.parametrize("name", ["\ud800", "\x7f", "a\nb"])
def test_but_not_what_cannot_be_written(name: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        stream_config("m.onnx", Device(camera=name))


def test_it_is_written_beside_nothing_else(tmp_path: Path) -> None:
    """A link under the name of the temporary file is not followed; 1970 is no error."""
    model, victim = tmp_path / "m.onnx", tmp_path / "victim"
    model.write_bytes(MODEL.read_bytes())
    os.utime(model, (0, 0))
    victim.write_text("mine")
    (tmp_path / ".b.zip.tmp").symlink_to(victim)
    write_bundle(model, tmp_path / "b.zip")
    assert victim.read_text() == "mine"
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert len(archive.namelist()) == 3 and archive.testzip() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".b.zip.tmp",
        "b.zip",
        "m.onnx",
        "victim",
    ]


def test_a_folder_is_no_zip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the name of a ZIP file to write, got the folder"):
        write_bundle(MODEL, tmp_path)


@pytest.mark.parametrize("port", [None, 8443])
def test_the_steps_install_what_the_configuration_needs(port: int | None) -> None:
    device = Device(source="rtsp://10.0.0.5/left side", port=port)
    steps, config = device_steps("m.onnx", device), stream_config("m.onnx", device)
    assert ("edge-ad[device,serve]" in steps) == ("[serve]" in config) == (port is not None)
    assert f":{port} " in steps if port else "live page" not in steps
    assert "--camera 'rtsp://10.0.0.5/left side'" in steps
