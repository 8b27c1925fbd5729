"""The options of CUDA and TensorRT, and where the engines that TensorRT builds are kept.

The names of the options are those of ONNX Runtime's CUDA and TensorRT execution providers.
"""

import ctypes
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from edge_ad_runtime.config_table import setting
from edge_ad_runtime.errors import DeviceError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so.11")

_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h."""

Options = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """How a GPU is used.

    Attributes:
        memory_mb: most memory that CUDA's arena takes; None: what it needs.
        conv_search: how cuDNN chooses convolutions: HEURISTIC starts soon, EXHAUSTIVE tries all.
        fp16: TensorRT may compute in float16 where that is faster.
        cache: folder for TensorRT's engines. They are machine code: nobody else may write there.
        workspace_mb: most memory that TensorRT may take while it builds; None: its own limit.
    """

    memory_mb: int | None = setting(None, low=64, high=1_000_000)
    conv_search: str = setting("HEURISTIC", choices=("HEURISTIC", "EXHAUSTIVE", "DEFAULT"))
    fp16: bool = setting(True)
    cache: Path = setting(Path("edge-ad-tensorrt"))
    workspace_mb: int | None = setting(None, low=64, high=1_000_000)


def provider_options(
    device: str, config: AcceleratorConfig, model: bytes, runtime_version: str
) -> dict[str, Options]:
    """Return the providers of a device, the wanted one first, with their options.

    Args:
        device: `cpu`, `cuda` or `tensorrt`.
        config: how a GPU is used.
        model: content of the model file, to which TensorRT's engines belong.
        runtime_version: of ONNX Runtime.

    Raises:
        DeviceError: the folder for the engines cannot be made, or is not safe.
    """
    if device == "cpu":
        return {CPU: {}}
    cuda = {
        "cudnn_conv_algo_search": config.conv_search,
        "arena_extend_strategy": "kSameAsRequested",
        # TF32 has the 10 bits of float16: too few for distances, which are small differences.
        "use_tf32": "0",
    }
    if config.memory_mb is not None:
        cuda["gpu_mem_limit"] = str(config.memory_mb * 2**20)
    if device == "cuda":
        return {CUDA: cuda}
    folder = os.fspath(_engine_folder(config, model, runtime_version))
    tensorrt = {
        "trt_fp16_enable": str(config.fp16),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
    }
    if config.workspace_mb is not None:
        tensorrt["trt_max_workspace_size"] = str(config.workspace_mb * 2**20)
    return {TENSORRT: tensorrt, CUDA: cuda}


def _engine_folder(config: AcceleratorConfig, model: bytes, runtime_version: str) -> Path:
    """Return the folder of one model's engines, for these very versions and this GPU.

    Raises:
        DeviceError: it cannot be made, or others may write into it.
    """
    versions = (library_version(name, "getInferLibVersion") for name in TENSORRT_LIBRARIES)
    tensorrt = next((version for version in versions if version is not None), 0)
    precision = "fp16" if config.fp16 else "fp32"
    name = f"ort{runtime_version}-trt{tensorrt}-{gpu_architecture()}-{precision}"
    folder = config.cache / hashlib.sha256(model).hexdigest()[:16] / re.sub(r"[^\w.-]", "_", name)
    try:
        for part in (config.cache, folder.parent, folder):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(part)
    except OSError as error:
        raise DeviceError(
            f"cannot keep TensorRT's engines in {folder} ({error.strerror}): set `cache` in the "
            "table [accelerator] to a folder that can be written to"
        ) from error
    return folder


def _check_private(folder: Path) -> None:
    """Refuse a folder in which somebody else could put an engine, which is machine code.

    Raises:
        DeviceError: others own it or may write into it.
    """
    if not hasattr(os, "getuid"):
        return
    state = folder.lstat()
    others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or others_write:
        raise DeviceError(
            f"the folder {folder} for TensorRT's engines belongs to another user, or others may "
            f"write into it: remove it, or `chmod 700 {folder}`"
        )


def gpu_architecture() -> str:
    """Return the architecture of the first GPU, such as `sm87`; `sm0`: there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        device, values = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
        if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
            return "sm0"
        for value, attribute in zip(values, _COMPUTE_CAPABILITY, strict=True):
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    except (OSError, AttributeError):
        return "sm0"
    return "sm" + "".join(str(value.value) for value in values)


def library_version(library: str, function: str) -> int | None:
    """Ask a C library for its version: as its result, or through a pointer as CUDA does.

    Args:
        library: file name, such as `libcuda.so.1`.
        function: that tells the version, such as `cuDriverGetVersion`.

    Returns:
        None: the library or the function is not here.
    """
    try:
        call = getattr(ctypes.CDLL(library), function)
    except (OSError, AttributeError):
        return None
    if function == "cuDriverGetVersion":
        number = ctypes.c_int(0)
        return number.value if call(ctypes.byref(number)) == 0 else None
    call.restype = ctypes.c_size_t if function == "cudnnGetVersion" else ctypes.c_int
    return int(call())
