"""ONNX Runtime and OpenCV: which ones are installed, what runs here, and what they still lack."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import packages_distributions, version
from types import ModuleType
from typing import Any

import numpy as np

from edge_ad_runtime.doctor import Finding, error, ok, warning
from edge_ad_runtime.model.accelerator import (
    CPU,
    CUDA,
    TENSORRT,
    TENSORRT_LIBRARIES,
    library_version,
)
from edge_ad_runtime.native import NATIVE, import_fault, import_native

_REMOTE = "AzureExecutionProvider"

Installed = Mapping[str, list[str]]
"""The distributions that ship each top-level module."""

# y = x @ x for x of 2 x 2, opset 13, written with the package onnx.
_TINY = bytes.fromhex(
    "08083a490a1a0a01780a01781201791a0770726f6475637422064d61744d756c1201745a130a0178120e0a0c0801"
    "12080a0208020a02080262130a0179120e0a0c080112080a0208020a02080242040a00100d"
)

_OLDEST = {"cv2": (4, 8), "onnxruntime": (1, 20)}
"""As pyproject.toml asks for them; pip with --no-deps does not look."""

_CUDNN_LIBRARIES = ("libcudnn.so.9", "libcudnn.so.8")

_DRIVER_ADVICE = "check the driver (nvidia-smi), or score with --device cpu"


def check_packages() -> Iterator[Finding]:
    """Look at the packages that score and that read cameras."""
    installed = packages_distributions()
    yield _edge_ad(installed)
    runtime, found = _load("onnxruntime", "onnxruntime", installed)
    yield found
    if runtime is not None:
        yield from _providers(runtime)
    opencv, found = _load("cv2", "opencv", installed)
    yield found
    if opencv is not None:
        yield _back_ends(opencv)


def _edge_ad(installed: Installed) -> Finding:
    names = sorted(set(installed.get("edge_ad_runtime", ())))
    if not names:
        return ok("edge-ad", f"run from a checkout, numpy {np.__version__}")
    return ok("edge-ad", f"edge-ad {version(names[0])}, numpy {np.__version__}")


def _load(module: str, check: str, installed: Installed) -> tuple[ModuleType | None, Finding]:
    """Import a package, and say which distributions it comes from."""
    names = sorted(set(installed.get(module, ())))
    if len(names) > 1:
        return None, error(
            check,
            f"{' and '.join(names)} are installed together; they overwrite each other's files, and "
            "which one runs is chance",
            f"pip uninstall -y {' '.join(names)}, then install one of them again",
        )
    signal_name = signal_at_import(module)
    if signal_name is not None:
        return None, error(
            check,
            f"importing it ends the process ({signal_name}): this build does not run here",
            f"pip install another version of {' '.join(names) or module}",
        )
    try:
        loaded = import_native(module)
    except ModuleNotFoundError:
        return None, error(check, "not installed", f"pip install {NATIVE[module]}")
    except ImportError as problem:
        return None, error(check, *import_fault(module, problem, names))
    found = getattr(loaded, "__version__", "?")
    text = f"{found} {f'from {names[0]}' if names else 'not from pip'}"
    oldest = _OLDEST[module]
    number = re.match(r"(\d+)\.(\d+)", found)
    if number and (int(number[1]), int(number[2])) < oldest:
        wanted = f"{oldest[0]}.{oldest[1]}"
        return loaded, warning(
            check,
            f"{text}, older than {wanted}, the oldest that edge-ad supports",
            f"pip install '{names[0] if names else NATIVE[module]}>={wanted}'",
        )
    return loaded, ok(check, text)


def signal_at_import(module: str) -> str | None:
    """Import a package in another process; return the signal that ended it, such as SIGILL."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return signal.Signals(-done.returncode).name if done.returncode < 0 else None


def _providers(runtime: ModuleType) -> Iterator[Finding]:
    """Try every provider that is compiled in with a tiny graph."""
    compiled = [name for name in runtime.get_available_providers() if name != _REMOTE]
    if hasattr(runtime, "preload_dlls") and CUDA in compiled:
        with contextlib.redirect_stdout(io.StringIO()):
            runtime.preload_dlls()
    if TENSORRT in compiled:
        libraries = _versions(TENSORRT_LIBRARIES, "getInferLibVersion")
        if not libraries:
            # The wheels for CUDA name it everywhere, and hardly any machine has its libraries.
            compiled.remove(TENSORRT)
            names = ", ".join(TENSORRT_LIBRARIES)
            libraries = f"none of {names} is here; only --device tensorrt needs them"
        yield ok("tensorrt", libraries)
    for name in compiled:
        problem = try_provider(runtime, name)
        short = name.removesuffix("ExecutionProvider")
        if problem is None:
            yield ok("provider", f"{short} is compiled in and runs")
        elif name == CPU:
            yield error("provider", f"CPU fails: {problem}", "install ONNX Runtime again")
        else:
            yield warning(
                "provider", f"{short} is compiled in but does not run: {problem}", _DRIVER_ADVICE
            )
    if CUDA in compiled or TENSORRT in compiled:
        yield from _cuda(runtime)


def try_provider(runtime: ModuleType, name: str) -> str | None:
    """Run a tiny graph on one provider and read back where it ran; return what went wrong."""
    from edge_ad_runtime.model.session import first_line, native_errors, silent_default_log

    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if name != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # A provider that is missing after all is reported below, in one sentence.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            silent_default_log(),
        ):
            warnings.simplefilter("ignore")
            session = runtime.InferenceSession(_TINY, options, providers=[name], enable_fallback=0)
        if session.get_providers()[0] != name:
            return f"the session went to {session.get_providers()[0]} instead"
        placed = placement(session)
        if placed and set(placed.values()) != {name}:
            return f"the graph was placed on {', '.join(sorted(set(placed.values())))} instead"
        (product,) = session.run(None, {"x": np.eye(2, dtype=np.float32)})
    except native_errors() as problem:
        return first_line(problem)
    return None if np.allclose(product, np.eye(2)) else "it computes wrongly"


def placement(session: Any) -> dict[str, str]:
    """Return the provider of each node by its name; empty where ONNX Runtime does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    return {
        f"{node.name or '?'} ({node.op_type})": part.ep_name
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    }


def _cuda(runtime: ModuleType) -> Iterator[Finding]:
    """Compare the CUDA that ONNX Runtime was built for with what is here."""
    built = str(getattr(runtime, "cuda_version", "") or "")
    driver = library_version("libcuda.so.1", "cuDriverGetVersion")
    if driver is None:
        yield warning("cuda", "no NVIDIA driver (libcuda.so.1) was found", _DRIVER_ADVICE)
    else:
        text = f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}"
        major = re.match(r"\d+", built)
        if major and int(major[0]) > driver // 1000:
            yield error(
                "cuda",
                f"{text}, but ONNX Runtime was built for CUDA {built}",
                "update the driver, or install an ONNX Runtime for the older CUDA "
                "(onnxruntime-gpu before 1.27 for CUDA 12)",
            )
        else:
            yield ok("cuda", f"{text}, ONNX Runtime built for CUDA {built or 'unknown'}")
    known = _versions(_CUDNN_LIBRARIES, "cudnnGetVersion")
    if known:
        yield ok("cudnn", known)
    else:
        yield warning(
            "cudnn",
            f"none of {', '.join(_CUDNN_LIBRARIES)} can be loaded",
            "pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA's libraries; a Jetson has its "
            "own from JetPack",
        )


def _versions(libraries: Sequence[str], function: str) -> str:
    """Name those of the libraries that can be loaded, with their versions; empty if none can."""
    found = [(name, library_version(name, function)) for name in libraries]
    return "; ".join(f"{name}, version {number}" for name, number in found if number is not None)


def _back_ends(opencv: ModuleType) -> Finding:
    """Say which kinds of cameras this OpenCV can open."""
    text = opencv.getBuildInformation()
    found = {
        name: bool(re.search(rf"^\s*{pattern}:\s+YES", text, re.MULTILINE))
        for name, pattern in (
            ("FFmpeg (files, RTSP)", "FFMPEG"),
            ("V4L2 (USB cameras)", "v4l/v4l2"),
            ("GStreamer (pipelines)", "GStreamer"),
        )
    }
    present = [name for name, there in found.items() if there]
    absent = [name for name, there in found.items() if not there]
    message = f"with {', '.join(present) or 'no back end'}"
    if not found["FFmpeg (files, RTSP)"]:
        return warning(
            "cameras",
            f"OpenCV has no FFmpeg and reads no video files and no RTSP cameras, {message}",
            "for these, pip uninstall it and pip install opencv-python-headless, which has FFmpeg",
        )
    return ok("cameras", message + (f"; without {', '.join(absent)}" if absent else ""))
