"""An ONNX Runtime session on the device that was asked for, or an error; never a silent fallback.

ONNX Runtime itself falls back: `providers=["CUDAExecutionProvider"]` on a machine without a
working CUDA gives a session on the CPU and a line in a log. Three checks stand against that: the
provider is compiled in, the session holds it after creation, and it has run the model once. What
the graph takes and gives is checked here as well.
"""

import contextlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_ad_runtime.errors import DeviceError, MissingExtraError, ModelFileError
from edge_ad_runtime.model.accelerator import (
    CPU,
    CUDA,
    TENSORRT,
    AcceleratorConfig,
    Options,
    provider_options,
)
from edge_ad_runtime.native import cannot_load, import_native

if TYPE_CHECKING:
    # It needs OpenCV, and `doctor` tries the providers where OpenCV cannot be imported.
    from edge_ad_runtime.model.info import ModelInfo

logger = logging.getLogger(__name__)

OUTPUTS = {"score": 1, "anomaly_map": 3}
"""Names of the outputs of a model file, and how many axes they have."""

_INPUT_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
"""Of our graphs and of the bare backbone."""

DEVICES = ("auto", "cpu", "cuda", "tensorrt")

_NEWER_ONNX = re.compile("Unsupported model IR version|Current official support for domain")
"""In what ONNX Runtime says of a file of a newer ONNX than it knows."""

_WARNINGS = 2
_ERRORS_ONLY = 3
_SILENT = 4

_SPIN_US = 50
"""How long a thread waits awake for the next operator: most come within this time."""

_BRIEF_SPINS_SINCE = (1, 26)
"""The first ONNX Runtime that takes an option for how long its threads spin."""


def create_session(
    model: bytes,
    device: str,
    threads: int | None = None,
    accelerator: AcceleratorConfig = AcceleratorConfig(),
) -> Any:
    """Return an `onnxruntime.InferenceSession` of the model.

    Bytes, not a path: ONNX Runtime then refuses every reference to a file beside the model.

    Args:
        model: content of the model file.
        device: one of `DEVICES`; `auto` is CUDA where it works, unless the file was exported for
            CPUs, and the CPU elsewhere. It is never TensorRT, which builds an engine for minutes.
        threads: CPU threads for one inference; None: one for each physical core.
        accelerator: how a GPU is used.

    Raises:
        MissingExtraError: ONNX Runtime is not installed, or cannot be loaded.
        DeviceError: the device cannot run the model here.
        ModelFileError: ONNX Runtime cannot read the model.
    """
    if device not in DEVICES:
        raise DeviceError(f"expected one of {', '.join(DEVICES)} as device, got {device!r}")
    if threads is not None and threads < 1:
        raise DeviceError(f"expected at least one thread, got {threads}")
    runtime = _onnxruntime()
    if device == "auto":
        device = "cpu"
        if CUDA in runtime.get_available_providers():
            from edge_ad_runtime.model.info import target_of  # it needs OpenCV, see above

            if target_of(model) == "cpu":
                # Its integers have no kernels on a GPU: half of it would run on the CPU anyway.
                logger.warning(
                    "continuing on the CPU, which the model file was exported for: "
                    "`edge-ad export --target cuda` writes one for a GPU"
                )
            else:
                try:
                    return _accelerated(runtime, model, "cuda", threads, accelerator)
                except DeviceError as error:
                    logger.warning("continuing on the CPU: %s", error)
    if device == "cpu":
        return _open(runtime, model, {CPU: {}}, session_options(runtime, threads))
    return _accelerated(runtime, model, device, threads, accelerator)


def _onnxruntime() -> ModuleType:
    """Import late: importing edge_ad_runtime stays cheap, and works without ONNX Runtime."""
    try:
        return import_native("onnxruntime")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "scoring needs ONNX Runtime, which is not installed: pip install onnxruntime, or "
            "onnxruntime-gpu for CUDA, never both"
        ) from error
    except ImportError as error:
        raise cannot_load("onnxruntime", error) from error


def _accelerated(
    runtime: ModuleType,
    model: bytes,
    device: str,
    threads: int | None,
    accelerator: AcceleratorConfig,
) -> Any:
    """Return a session that has proven to run on the device.

    Raises:
        DeviceError: it cannot.
        ModelFileError: the model cannot be read.
    """
    wanted = {"cuda": CUDA, "tensorrt": TENSORRT}[device]
    available = runtime.get_available_providers()
    if wanted not in available:
        raise DeviceError(
            f"asked for the device '{device}', but the installed ONNX Runtime offers "
            f"{', '.join(available)}: put the one for GPUs in its place (pip uninstall -y "
            "onnxruntime && pip install onnxruntime-gpu; a Jetson has its own build), or use "
            "--device cpu"
        )
    _preload_libraries(runtime)
    providers = provider_options(device, accelerator, model, runtime.__version__)
    session, whole = _whole_or_part(runtime, model, providers, threads)
    if session.get_providers()[0] != wanted:
        raise DeviceError(
            f"asked for the device '{device}', but {wanted} did not start on this machine: "
            "check the driver and the CUDA libraries, or use --device cpu"
        )
    _try_once(session, device)
    if not whole:
        logger.warning("%s cannot hold the whole graph: a part runs on the CPU", wanted)
    return session


def _whole_or_part(
    runtime: ModuleType, model: bytes, providers: dict[str, Options], threads: int | None
) -> tuple[Any, bool]:
    """Place the whole graph on the accelerator, or failing that, all but a part.

    Returns:
        The session, and whether the accelerator has the whole graph. Where it has not, the session
        may as well be on the CPU altogether; the checks that follow tell.
    """
    strict = session_options(runtime, threads, severity=_SILENT)
    strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return _open(runtime, model, providers, strict), True
    except DeviceError:
        # Also raised where only shape arithmetic belongs on the CPU.
        options = session_options(runtime, threads, severity=_SILENT)
        return _open(runtime, model, {**providers, CPU: {}}, options), False


def session_options(runtime: ModuleType, threads: int | None, severity: int = _ERRORS_ONLY) -> Any:
    """Return the `SessionOptions` of a session that shares its cores with cameras and decoders.

    Threads that sleep between two operators have to be woken a hundred times for each frame, and
    threads that spin for long, or after the last operator, take the cores from the decoder of the
    next frame. So they spin for 50 us, and not between two frames.

    Args:
        runtime: the module `onnxruntime`.
        threads: CPU threads for one inference; None: one for each physical core.
        severity: from which on ONNX Runtime logs, 0 (everything) to 4 (fatal errors).
    """
    options = runtime.SessionOptions()
    options.log_severity_level = severity
    options.inter_op_num_threads = 1
    if _release(runtime.__version__) >= _BRIEF_SPINS_SINCE:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor number of a version such as `1.26.0` or `1.27.0.dev20260801`."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _open(runtime: ModuleType, model: bytes, providers: dict[str, Options], options: Any) -> Any:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    unreadable = (state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument)
    # ONNX Runtime's own Python layer prints about its fallbacks; stdout belongs to the verdicts.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return runtime.InferenceSession(
                model,
                options,
                providers=list(providers),
                provider_options=list(providers.values()),
                # Otherwise its Python layer tries again on other providers, and the error of the
                # second try hides that of the first.
                enable_fallback=0,
            )
        except native_errors() as error:
            if _NEWER_ONNX.search(str(error)):
                raise ModelFileError(
                    f"ONNX Runtime {runtime.__version__} is too old for it: update ONNX Runtime"
                ) from error
            if isinstance(error, unreadable):
                raise ModelFileError(
                    "it is not an ONNX model, or it is damaged: copy it again or export the run "
                    "again"
                ) from error
            message = f"ONNX Runtime {runtime.__version__} cannot run it ({first_line(error)})"
            if list(providers) == [CPU]:
                raise ModelFileError(f"{message}: update ONNX Runtime or export again") from error
            raise DeviceError(f"{message} on {next(iter(providers))}: use --device cpu") from error


def _preload_libraries(runtime: ModuleType) -> None:
    """Load the CUDA libraries that came from pip; system-wide ones are found without."""
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            runtime.preload_dlls()


def _try_once(session: Any, device: str) -> None:
    """Run one black frame: a wheel without kernels for this GPU fails here and not before."""
    inputs = session.get_inputs()
    kind = _INPUT_TYPES.get(inputs[0].type) if len(inputs) == 1 else None
    if kind is None:
        return  # not our graph; the scorer refuses it in better words
    shape = [size if isinstance(size, int) else 1 for size in inputs[0].shape]
    try:
        with silent_default_log():
            session.run(None, {inputs[0].name: np.zeros(shape, dtype=kind)})
    except native_errors() as error:
        raise DeviceError(
            f"the device '{device}' failed on the first frame ({first_line(error)}): "
            "install an ONNX Runtime built for this GPU, or use --device cpu"
        ) from error


@contextlib.contextmanager
def silent_default_log() -> Iterator[None]:
    """Silence ONNX Runtime's default log during an inference in which cuDNN chooses convolutions.

    cuDNN reports there, not to the session's log, each convolution for which its first plan does
    not fit, and then takes another. ONNX Runtime does not tell how loud the log was: it leaves with
    the level that it has at the start.
    """
    import onnxruntime  # loaded long ago: it is called for every frame

    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)


def native_errors() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime may raise; it gives its own classes no common base.

    The built-in ones are what pybind11 makes of exceptions of C++'s standard library.
    """
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [one for one in vars(state).values() if isinstance(one, type)]
    return (
        *(one for one in own if issubclass(one, Exception)),
        RuntimeError,
        ValueError,
        IndexError,
        OverflowError,
        MemoryError,
    )


def first_line(error: Exception) -> str:
    """Return the head of an ONNX Runtime message, which may go on for pages."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # Some begin with the place in its source: `/path/file.cc:729 void name(Options&) `.
    text = re.sub(r"^/\S+:\d+ .*?\) ", "", text)
    return text if len(text) <= 200 else text[:200] + "..."


def is_fixed_to_one(session: Any, info: "ModelInfo") -> bool:
    """Check the graph's names, types and sizes; return whether it takes one frame at a time.

    Raises:
        ModelFileError: they are not those of format version 1.
    """
    inputs = {item.name: (item.type, item.shape) for item in session.get_inputs()}
    outputs = {item.name: (item.type, len(item.shape)) for item in session.get_outputs()}
    kind, shape = inputs.get("frame", ("nothing", [None]))
    height, width = ("H", "W") if info.resize_in_graph else info.input_size
    sized = list(shape[3:]) == [3] and _are_sides(shape[1:3], info)
    if len(inputs) != 1 or kind != "tensor(uint8)" or not sized:
        raise ModelFileError(
            f"expected one input 'frame' of type uint8 and size N x {height} x {width} x 3, "
            f"found {_described(inputs)}: export the run again"
        )
    if any(outputs.get(name) != ("tensor(float)", axes) for name, axes in OUTPUTS.items()):
        raise ModelFileError(
            f"expected the float outputs 'score' and 'anomaly_map', found {_described(outputs)}: "
            "export the run again"
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelFileError(
            f"expected a dynamic batch or one of 1, found {shape[0]}: export the run again"
        )
    return isinstance(shape[0], int)


def _are_sides(sides: Sequence[object], info: "ModelInfo") -> bool:
    """Whether height and width of the input are those promised: free ones are named."""
    if info.resize_in_graph:
        return len(sides) == 2 and all(isinstance(side, str) for side in sides)
    return tuple(sides) == info.input_size


def _described(items: dict[str, Any]) -> str:
    return ", ".join(f"'{name}' {kind}" for name, kind in items.items()) or "none"
