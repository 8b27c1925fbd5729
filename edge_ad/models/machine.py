"""What the machine has for a fit: its device, threads for blocks of work, enough memory."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import torch

from edge_ad_runtime.errors import DeviceError, EdgeAdError


@contextmanager
def thread_pool(device: torch.device) -> Iterator[Executor | None]:
    """Give a CPU one thread a block, where torch would split every operation; None for a GPU.

    The threads meet once at the end instead of after each of a hundred operations of microseconds:
    where other programs are busy, every such meeting waits for the scheduler. What runs in the
    pool is not in the caller's inference mode: decorate it.
    """
    if device.type != "cpu":
        yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def free_memory(device: torch.device) -> int:
    """Return the bytes that the device has free."""
    on_cuda = device.type == "cuda"
    return int(torch.cuda.mem_get_info(device)[0] if on_cuda else psutil.virtual_memory().available)


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep TF32 and bfloat16 out of convolutions and matrix products.

    PyTorch computes convolutions on a GPU in TF32 unless told otherwise: with 10 bits of mantissa,
    so that the scores of a fit on a GPU would not be those of the same fit on a CPU.
    """
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            benchmark=torch.backends.cudnn.benchmark,
            deterministic=torch.backends.cudnn.deterministic,
            allow_tf32=False,
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(products)


def check_memory(size: int, device: torch.device, advice: str) -> None:
    """Refuse work that needs more than the device has free.

    Args:
        size: bytes needed.
        device: where they are needed.
        advice: what makes it smaller, in the words of the command line.

    Raises:
        EdgeAdError: with the size needed, the size free, and the advice.
    """
    free = free_memory(device)
    if size > free:
        raise EdgeAdError(
            f"the fit would need {size / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free on "
            f"{device}: {advice}"
        )


@contextmanager
def telling_when_memory_ends(input_size: tuple[int, int], device: torch.device) -> Iterator[None]:
    """Turn a failed allocation, of PyTorch or numpy, into one sentence.

    Raises:
        EdgeAdError: the device has too little memory for frames of (height, width) pixels.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On CUDA PyTorch has a class for it (a RuntimeError), on the CPU only the text.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and (
            "allocate memory" not in str(error)
        ):
            raise
        height, width = input_size
        raise EdgeAdError(
            f"{device} has too little memory for frames of {height}x{width} pixels: choose a "
            "smaller --input-size, or another --device"
        ) from error


def torch_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu` or `cuda`; an explicit `cuda` never falls back."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "expected a CUDA device for --device cuda, PyTorch finds none: "
            "use --device cpu, or install the driver and a CUDA build of PyTorch"
        )
    return torch.device(name)
