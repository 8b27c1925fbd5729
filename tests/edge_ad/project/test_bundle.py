"""The bundle for a device: names in any script, clocks of any year, folders of any neighbour."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_ad.project import bundle
from edge_ad.project.bundle import (
    CONFIG_FILE,
    Device,
    device_steps,
    stream_config,
    write_bundle,
)
from edge_ad_runtime import Scorer
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


@pytest.mark.parametrize(
    ("target", "packages", "order"),
    [
        ("portable", "'edge-ad[device,serve]'", None),
        ("cuda", "'edge-ad[device-gpu,serve]'", "cuda"),
        ("tensorrt", "onnxruntime_gpu-*.whl", "tensorrt"),
    ],
)
def test_a_gpu_gets_the_packages_of_a_gpu(target: str, packages: str, order: str | None) -> None:
    device = Device(target=target)
    steps, config = device_steps("m.onnx", device), stream_config("m.onnx", device)
    assert packages in steps and ("edge-ad[device," in steps) == (order is None)
    assert (f'device = "{order}"' in config) == (order is not None)
    assert ("--device" in steps) == (order is not None)


def test_packages_without_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(Scorer(MODEL, device="cpu").info, target="cuda")
    monkeypatch.setattr(bundle, "Scorer", lambda *_, **__: SimpleNamespace(info=info))
    (tmp_path / "onnxruntime-1.31.0-cp311.whl").touch()
    with pytest.raises(DataError, match="make bundle BUNDLE_EXTRAS=device-gpu,serve"):
        write_bundle(MODEL, tmp_path / "b.zip", wheels=tmp_path)
    assert not (tmp_path / "b.zip").exists()
