"""`edge-ad doctor`: the truth on this machine, and the repair of each planted fault."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from edge_ad.cli import main
from edge_ad_runtime import (
    CameraError,
    FakeCamera,
    FrameError,
    MissingExtraError,
    ModelFileError,
    ModelInfo,
    Scorer,
    cameras,
)
from edge_ad_runtime.doctor import Finding, inputs, packages, system
from edge_ad_runtime.model.info import VERSION_KEY
from edge_ad_runtime.model.session import create_session
from edge_ad_runtime.native import apt_line, cannot_load, missing_library

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


signal_at_import = packages.signal_at_import


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # It imports both packages once more, which takes most of a second.
    monkeypatch.setattr(packages, "signal_at_import", lambda module: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def findings(*arguments: object) -> dict[str, list[dict[str, str]]]:
    """Run with --json; return the findings by check."""
    result = run("--json", *arguments)
    document = json.loads(result.stdout)
    assert document["ok"] == (result.exit_code == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in document["findings"]:
        assert finding["advice"] or finding["status"] == "ok"
        found.setdefault(finding["check"], []).append(finding)
    return found


def test_a_sound_machine(model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "signal_at_import", signal_at_import)
    result = run("--model", model, "--camera", pictures)
    assert result.exit_code == 0, result.output
    for words in (
        f"Python {sys.version.split()[0]}",
        f"{onnxruntime.__version__} from onnxruntime",
        "CPU is compiled in and runs",
        f"{pictures}: 96 x 48",
        "padim on plate",
        "nodes run on CPUExecutionProvider",
        "frames a second",
        "0 errors",
    ):
        assert words in result.stdout, words


def test_golden_frames(write_model: Callable[..., Path], info: ModelInfo) -> None:
    """A device that scores otherwise than the workstation is an error with what to do."""
    from edge_ad_runtime.model.golden import Golden

    frame = np.full((32, 64, 3), 90, np.uint8)
    for divisor, status, words in ((1.0, "ok", "1 golden frame "), (1.1, "error", "the score")):
        golden = Golden.record(Scorer(write_model(), device="cpu"), [frame], 0.01)
        metadata = info.to_metadata() | golden.to_metadata()
        model = write_model("golden.onnx", metadata=metadata, divisor=divisor)
        (finding,) = findings("--model", model)["golden"]
        assert finding["status"] == status and words in finding["message"]


def install(folder: Path, name: str, module: str) -> None:
    """Make a distribution appear to be installed that ships a module."""
    info = folder / f"{name.replace('-', '_')}-1.30.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    (info / "top_level.txt").write_text(module + "\n")


@pytest.mark.parametrize(
    ("check", "module", "name", "beside"),
    [
        ("onnxruntime", "onnxruntime", "onnxruntime-gpu", "onnxruntime"),
        ("opencv", "cv2", "opencv-contrib-python", "opencv"),
    ],
)
def test_two_wheels_of_one_package(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    module: str,
    name: str,
    beside: str,
) -> None:
    install(tmp_path / "site", name, module)
    monkeypatch.syspath_prepend(tmp_path / "site")
    (finding,) = findings()[check]
    assert finding["status"] == "error" and f"pip uninstall -y {beside}" in finding["advice"]
    assert name in finding["message"] and "installed together" in finding["message"]


def test_cuda_that_is_compiled_in_but_absent(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that names CUDA on a machine without it: ONNX Runtime goes to the CPU silently."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    # PyTorch, if another test has imported it, has loaded cuDNN into this process.
    monkeypatch.setattr(packages, "library_version", lambda name, function: None)
    found = findings()
    cuda, cpu = found["provider"]
    assert cuda["status"] == "warning" and "CUDA is compiled in but does not run" in cuda["message"]
    assert "--device cpu" in cuda["advice"]
    assert cpu["status"] == "ok"
    assert "no NVIDIA driver" in found["cuda"][0]["message"]
    assert found["cudnn"][0]["status"] == "warning"


@pytest.mark.parametrize(
    ("driver", "built", "status"),
    [(12040, "13.0", "error"), (13000, "13.0", "ok"), (13010, "12.8", "ok"), (12020, "", "ok")],
)
def test_the_driver_and_the_cuda_of_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, driver: int, built: str, status: str
) -> None:
    versions = {"libcuda.so.1": driver, "libcudnn.so.9": 92000}
    monkeypatch.setattr(packages, "library_version", lambda name, function: versions.get(name))
    runtime: Any = SimpleNamespace(cuda_version=built)
    cuda, cudnn = packages._cuda(runtime)
    assert cuda.status == status
    assert f"CUDA {driver // 1000}.{driver % 1000 // 10}" in cuda.message
    assert cudnn.status == "ok"


@pytest.mark.parametrize("version", [None, 101300])
def test_tensorrt_is_tried_only_where_its_libraries_are(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], version: int | None
) -> None:
    """ONNX Runtime prints a frame of asterisks and falls back where they are missing."""

    def open_session(model: bytes, options: Any, providers: list[str], enable_fallback: int) -> Any:
        assert providers == [TENSORRT] and not enable_fallback
        print("*************** EP Error ***************")
        raise RuntimeError("Please install TensorRT libraries")

    versions = {"libnvinfer.so.10": version}
    monkeypatch.setattr(packages, "library_version", lambda name, function: versions.get(name))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    tensorrt, *others = packages._providers(onnxruntime)
    assert tensorrt.check == "tensorrt" and tensorrt.status == "ok"
    if version is None:
        assert "only --device tensorrt needs them" in tensorrt.message and not others
    else:
        assert "version 101300" in tensorrt.message
        assert others[0].status == "warning" and "Please install" in others[0].message
    assert capfd.readouterr().out == ""


def test_a_camera_that_is_missing() -> None:
    (finding,) = findings("--camera", "/dev/video77")["camera"]
    assert finding["status"] == "error" and "cannot open the camera" in finding["message"]
    assert "plugged in" in finding["advice"]


def frames_of(monkeypatch: pytest.MonkeyPatch, frames: Any) -> list[dict[str, str]]:
    camera = FakeCamera(frames, live=True)
    monkeypatch.setattr(cameras, "open_source", lambda spec: camera)
    return findings("--camera", "0")["camera"]


def test_a_camera_that_gives_black_and_identical_pictures(
    monkeypatch: pytest.MonkeyPatch, frames: Callable[..., list[Any]]
) -> None:
    def slow() -> Any:
        import time

        for frame in frames(*[1] * 10):
            time.sleep(0.02)
            yield frame

    size, black, frozen = frames_of(monkeypatch, slow())
    assert "96 x 48" in size["message"] and "frames a second" in size["message"]
    assert black["status"] == "warning" and "lens cap" in black["advice"]
    assert frozen["status"] == "warning" and "identical" in frozen["message"]


def test_a_camera_that_breaks_off_or_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (lost,) = frames_of(monkeypatch, [CameraError("the camera 0 is gone: check its cable")])
    assert (lost["status"], lost["message"]) == ("error", "the camera 0 is gone")
    assert lost["advice"] == "check its cable"
    (unusable,) = frames_of(monkeypatch, [FrameError("it is no picture: remove it")] * 3)
    assert unusable["status"] == "error" and "check the address" in unusable["advice"]
    assert "3 of 3 frames" in unusable["message"] and "it is no picture" in unusable["message"]
    (nothing,) = frames_of(monkeypatch, [])
    assert nothing["status"] == "error" and "no frame" in nothing["message"]


def test_a_folder_of_pictures_of_many_sizes(tmp_path: Path) -> None:
    two, four = tmp_path / "two", tmp_path / "four"
    for folder, widths in ((two, (40, 50)), (four, (40, 50, 60, 70))):
        folder.mkdir()
        for width in widths:
            picture = np.full((32, width, 3), 90, np.uint8)
            assert cv2.imwrite(str(folder / f"{width}.png"), picture)
    first, second = findings("--camera", two, "--camera", four)["camera"]
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert first["message"].endswith("40 x 32 and 50 x 32")
    assert second["message"].endswith("4 different sizes")


def test_usb_cameras_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "DEVICES", tmp_path)
    assert "no USB camera" in findings()["video devices"][0]["message"]


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (finding,) = findings()["disk"]
    assert finding["status"] == "error" and "a folder that exists" in finding["advice"]


def test_a_camera_that_loses_a_frame(
    monkeypatch: pytest.MonkeyPatch, frames: Callable[..., list[Any]]
) -> None:
    found = frames_of(monkeypatch, [FrameError("it is no picture: remove it"), *frames(100)])
    assert [finding["status"] for finding in found] == ["warning", "ok"]
    assert "1 of 2 frames of 0 were lost" in found[0]["message"]


def test_a_model_of_a_newer_format(write_model: Callable[..., Path], info: ModelInfo) -> None:
    newer = write_model("newer.onnx", metadata=info.to_metadata() | {VERSION_KEY: "99"})
    (finding,) = findings("--model", newer)["model"]
    assert finding["status"] == "error" and "format version 99" in finding["message"]
    assert "update edge-ad" in finding["advice"]


def test_a_model_that_is_not_there_and_one_that_is_cut_off(model: Path, tmp_path: Path) -> None:
    (missing,) = findings("--model", tmp_path / "none.onnx")["model"]
    assert missing["status"] == "error"
    model.write_bytes(model.read_bytes()[:200])
    (cut,) = findings("--model", model)["model"]
    assert cut["status"] == "error" and "damaged" in cut["message"]


def test_a_calibration_of_another_model(model: Path) -> None:
    Path(f"{model}.calibration.json").write_text(
        json.dumps({"version": 1, "model_sha256": "0", "cameras": []})
    )
    (finding,) = findings("--model", model)["calibration"]
    assert finding["status"] == "warning" and "another file" in finding["message"]


def test_a_home_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")
    (finding,) = findings()["home"]
    assert finding["status"] == "warning" and "XDG_CACHE_HOME" in finding["advice"]


@pytest.mark.parametrize(
    ("free", "status"), [(10_000_000, "error"), (500_000_000, "warning"), (10**11, "ok")]
)
def test_a_disk_that_fills(monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert findings()["disk"][0]["status"] == status


def test_a_working_directory_on_a_read_only_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is full by nature: freeing space would not help."""

    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    disk = system._disk(Path())
    assert disk.status == "warning" and "can be written to" in disk.advice
    assert "0 MB free" in disk.message


@pytest.mark.parametrize(("bits", "status"), [(0x2041, "warning"), (0x2001, "ok")])
def test_the_clock(monkeypatch: pytest.MonkeyPatch, bits: int, status: str) -> None:
    monkeypatch.setattr(system, "clock_status", lambda: bits)
    assert findings()["clock"][0]["status"] == status


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Put another machine's kernel files in place of this one's."""

    def put(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / "machine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(system, "ROOT", tmp_path / "machine")

    return put


@pytest.mark.parametrize(
    ("bits", "status", "words"),
    [
        ("50005", "warning", "now: under-voltage, throttled"),
        ("50000", "warning", "since the start: under-voltage, throttled"),
        ("0", "ok", "no under-voltage"),
    ],
)
def test_a_raspberry_pi(
    machine: Callable[[dict[str, str]], None], bits: str, status: str, words: str
) -> None:
    machine(
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/meminfo": "MemTotal:        8000000 kB\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": bits + "\n",
            "sys/class/thermal/thermal_zone0/temp": "61000\n",
        }
    )
    found = findings()
    assert "Raspberry Pi 5 Model B Rev 1.0, 8.0 GB" in found["board"][0]["message"]
    assert found["power"][0]["status"] == status and words in found["power"][0]["message"]
    assert (found["heat"][0]["status"], found["heat"][0]["message"][:2]) == ("ok", "61")


def test_a_hot_jetson(machine: Callable[[dict[str, str]], None]) -> None:
    machine(
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic\n",
            "sys/class/thermal/thermal_zone0/temp": "51000\n",
            "sys/class/thermal/thermal_zone1/temp": "96500\n",
            "sys/class/hwmon/hwmon1/oc1_event_cnt": "3\n",
        }
    )
    found = findings()
    assert "Orin Nano Developer Kit, L4T R36 (release)" in found["board"][0]["message"]
    assert found["heat"][0]["status"] == "warning" and "96" in found["heat"][0]["message"]
    assert "3 times" in found["power"][0]["message"]


LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"


def on_bare_debian(tmp_path: Path, module: str, *arguments: object) -> Any:
    """Run a command where a package finds no system library."""
    fake = tmp_path / "bare" / module
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(f"raise ImportError({LIBGL!r})")
    paths = [str(tmp_path / "bare"), os.environ.get("PYTHONPATH", ""), *sys.path]
    return subprocess.run(
        [sys.executable, "-c", "from edge_ad.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


@pytest.mark.parametrize("command", ["predict", "stream", "info", "bench", "calibrate"])
def test_a_missing_system_library_is_one_sentence(
    tmp_path: Path, model: Path, pictures: Path, command: str
) -> None:
    arguments: dict[str, list[object]] = {
        "predict": [model, pictures],
        "stream": ["--model", model, "--camera", pictures],
        "info": [model],
        "bench": [model],
        "calibrate": [model, "--images", pictures],
    }
    done = on_bare_debian(tmp_path, "cv2", command, *arguments[command])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert "libGL.so.1" in done.stderr and "sudo apt-get install libgl1" in done.stderr
    assert "edge-ad[device]" in done.stderr


def test_doctor_names_a_missing_system_library(tmp_path: Path, model: Path) -> None:
    done = on_bare_debian(tmp_path, "cv2", "doctor", "--model", model)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ERROR    opencv" in done.stdout and "sudo apt-get install libgl1" in done.stdout


def test_doctor_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = findings("--model", model)
    (finding,) = found["onnxruntime"]
    # Not the extra, which would bring a second OpenCV where another one is installed.
    assert (finding["status"], finding["advice"]) == ("error", "pip install onnxruntime")
    assert "model" not in found


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libGL.so.1", "libgl1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libxcb.so.1", "libxcb1"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libodd-3.so.2", "apt-file search libodd-3.so.2"),
    ],
)
def test_the_package_of_a_library(library: str, package: str) -> None:
    error = ImportError(f"{library}: cannot open shared object file: No such file or directory")
    assert missing_library(error) == library
    assert package in apt_line(library)
    assert package in str(cannot_load("onnxruntime", error))


def test_a_broken_package_is_one_sentence() -> None:
    message = str(cannot_load("cv2", ImportError("undefined symbol\n_PyX")))
    assert "\n" not in message and "undefined symbol _PyX" in message


def test_a_package_for_another_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV of JetPack 6 or Ubuntu 22.04, after pip has brought a newer NumPy."""
    monkeypatch.setattr(np, "__version__", "2.2.6")
    message = str(cannot_load("cv2", ImportError("numpy.core.multiarray failed to import")))
    assert "compiled for NumPy 1, and NumPy 2.2.6" in message and "'numpy<2'" in message


def test_a_package_of_which_only_some_files_are_left(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `pip uninstall` of one of two wheels leaves: they had overwritten each other's files."""
    rest = module_from_spec(ModuleSpec("onnxruntime", None, is_package=True))
    monkeypatch.setitem(sys.modules, "onnxruntime", rest)
    (finding,) = findings("--model", model)["onnxruntime"]
    assert finding["status"] == "error" and "only some of its files" in finding["message"]
    assert finding["advice"] == "pip install --force-reinstall --no-deps onnxruntime"
    result = CliRunner().invoke(main, ["predict", str(model), str(pictures)])
    assert result.exit_code == 1 and "only some of its files" in result.stderr
    with pytest.raises(MissingExtraError, match="only some of its files"):
        Scorer(model)


def test_a_package_that_ends_the_process(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel with instructions that this processor lacks, as ONNX Runtime 1.21.0 on a Pi 4."""
    fake = tmp_path / "site/onnxruntime"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(packages, "signal_at_import", signal_at_import)
    found = findings("--model", model)
    (finding,) = found["onnxruntime"]
    assert finding["status"] == "error" and "SIGILL" in finding["message"]
    assert "another version" in finding["advice"] and "model" not in found


def test_an_old_onnx_runtime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.17.3")
    (finding,) = findings()["onnxruntime"]
    assert finding["status"] == "warning" and "older than 1.20" in finding["message"]
    assert finding["advice"] == "pip install 'onnxruntime>=1.20'"
    content = model.read_bytes()
    assert content[0] == 8  # the field with the version of ONNX's IR, one byte
    with pytest.raises(ModelFileError, match=r"ONNX Runtime 1.17.3 is too old for it: update"):
        create_session(b"\x08\x63" + content[2:], "cpu")


@pytest.mark.parametrize("package", ["numpy", "click"])
def test_a_missing_base_package_is_one_sentence(package: str) -> None:
    """As after `pip install --no-deps`, which a Jetson needs."""
    program = (
        f"import sys; sys.modules['{package}'] = None; from edge_ad.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 1
    assert done.stderr == f"Error: edge-ad needs the package {package}: pip install {package}\n"


def test_findings_are_plain_json() -> None:
    finding = Finding(check="a", status="ok", message="b")
    assert finding.fields() == {"check": "a", "status": "ok", "message": "b", "advice": ""}
