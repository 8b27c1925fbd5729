"""Where a model file lies on a device, and what lies beside it: its signature and its calibrations.

`edge-ad install` keeps the model in use and the one before in two slots, and makes the path that
streams are given a symbolic link into one of them (`edge_ad_runtime.install.slots`). Whoever reads
what lies beside a model file has to follow that link first, and no other one.
"""

import os
from pathlib import Path


def slots_folder(path: Path) -> Path:
    """Return the folder beside a model file in which `edge-ad install` keeps the new and the old.

    The path itself is then a symbolic link to `cable.onnx.slots/a/cable.onnx` or to that in `b`.
    """
    return path.with_name(path.name + ".slots")


def install_lock(path: Path) -> Path:
    """Return the file that `edge-ad install` holds locked while it works on the slots of a path."""
    return slots_folder(path) / "lock"


def installed(path: Path) -> Path:
    """Return the file in a slot to which `edge-ad install` has led a path, else the path.

    A signature and a calibration lie beside that file, so that they change together with it.
    """
    try:
        target = Path(os.readlink(path))
    except (OSError, ValueError):
        return path
    if len(target.parts) == 3 and target.parts[0] == slots_folder(path).name:
        return path.parent / target
    return path


def other_slot(file: Path) -> Path:
    """Return where the file in the other of two slots lies."""
    return file.parent.with_name("b" if file.parent.name == "a" else "a") / file.name


def signature_path(model: Path) -> Path:
    """Return where the signature of a model file lies unless something else is said."""
    model = installed(model)
    return model.with_name(model.name + ".sig")


def calibration_path(model: Path) -> Path:
    """Return the file beside a model that holds its calibrations: `cable.onnx.calibration.json`."""
    model = installed(model)
    return model.with_name(model.name + ".calibration.json")
