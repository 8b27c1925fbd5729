"""OpenCV and ONNX Runtime, which may be installed and yet not load: why, and what to do."""

import contextlib
import importlib
import io
import re
from types import ModuleType

import numpy as np

from edge_ad_runtime.errors import MissingExtraError

NATIVE = {"cv2": "opencv-python-headless", "onnxruntime": "onnxruntime"}
"""What pip calls the packages in C++ that may be installed and yet not run."""

_MISSING = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")

_APT = {
    "libGL": "libgl1",
    "libgthread": "libglib2.0-0",
    "libglib": "libglib2.0-0",
    "libxcb": "libxcb1",
    "libX11": "libx11-6",
    "libXext": "libxext6",
    "libSM": "libsm6",
    "libICE": "libice6",
    "libgomp": "libgomp1",
    "libstdc++": "libstdc++6",
    "libv4l": "libv4l-0",
}
"""Debian's and Ubuntu's package for the head of a library's name."""


def import_native(module: str) -> ModuleType:
    """Import OpenCV or ONNX Runtime.

    Raises:
        ModuleNotFoundError: it is not installed.
        ImportError: it cannot be loaded, or only some of its files are there.
    """
    # NumPy prints a page about modules that were compiled for another NumPy.
    with contextlib.redirect_stderr(io.StringIO()):
        loaded = importlib.import_module(module)
    # A folder without its __init__.py: pip has uninstalled one of two that overwrote each other.
    if hasattr(loaded, "__path__") and getattr(loaded, "__file__", None) is None:
        raise ImportError("only some of its files are there")
    return loaded


def cannot_load(module: str, error: ImportError) -> MissingExtraError:
    """Say in one sentence why a module that is installed cannot be imported, and what to do."""
    from importlib.metadata import packages_distributions  # slow, and seldom needed

    names = sorted(set(packages_distributions().get(module, ())))
    fault, advice = import_fault(module, error, names)
    return MissingExtraError(f"the package of '{module}' is installed, but {fault}: {advice}")


def import_fault(module: str, error: ImportError, names: list[str]) -> tuple[str, str]:
    """Return why a package cannot be imported, and what to do.

    Args:
        module: its name in Python.
        error: what importing it raised.
        names: of the distributions that ship it.
    """
    library = missing_library(error)
    if library is not None:
        advice = apt_line(library)
        if module == "cv2":
            advice += (
                ", or put the OpenCV without windows in place of this one, which needs no such "
                f"library: pip uninstall -y {' '.join(names) or 'opencv-python'} && "
                "pip install opencv-python-headless (edge-ad[device] brings it)"
            )
        return f"the system library {library} is missing", advice
    wheels = " ".join(names) or NATIVE[module]
    if "multiarray" in str(error) and int(np.__version__.split(".")[0]) > 1:
        return (
            f"it was compiled for NumPy 1, and NumPy {np.__version__} is installed",
            f"pip install 'numpy<2', or a newer build of {wheels}",
        )
    reason = " ".join(str(error).split())[:200]
    return f"it cannot be loaded ({reason})", f"pip install --force-reinstall --no-deps {wheels}"


def missing_library(error: ImportError) -> str | None:
    """Return the system library that was not found, such as `libGL.so.1`; None: another reason."""
    found = _MISSING.search(str(error))
    return found[1] if found else None


def apt_line(library: str) -> str:
    """Return the command that installs a library, or that finds its package."""
    name = re.split(r"[.-]", library)[0]
    package = _APT.get(name)
    if package is None:
        return f"apt-file search {library}, then sudo apt-get install the package it names"
    return f"sudo apt-get install {package}"
