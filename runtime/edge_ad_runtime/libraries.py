"""System libraries that packages from pip need and a bare Debian or Ubuntu lacks."""

import re

from edge_ad_runtime.errors import MissingExtraError

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


def cannot_load(module: str, error: ImportError) -> MissingExtraError:
    """Say in one sentence why a module that is installed cannot be imported, and what to do."""
    library = missing_library(error)
    if library is None:
        reason = " ".join(str(error).split())[:200]
        return MissingExtraError(
            f"the package of '{module}' is installed but broken ({reason}): install it again"
        )
    advice = f"install it with `{apt_line(library)}`"
    if module == "cv2":
        advice += (
            ", or put the OpenCV without windows in place of this one, which needs no such "
            "library: pip uninstall -y opencv-python && pip install opencv-python-headless "
            "(the extra edge-ad[device] brings it)"
        )
    return MissingExtraError(
        f"the package of '{module}' needs the system library {library}, which is not installed: "
        f"{advice}"
    )
