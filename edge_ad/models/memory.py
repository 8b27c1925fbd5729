"""Whether something fits into memory: asked before the work begins, told when it did not."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from edge_ad_runtime.errors import EdgeAdError


def check_memory(size: int, device: torch.device, advice: str) -> None:
    """Refuse work that needs more than the device has free.

    Args:
        size: bytes needed.
        device: where they are needed.
        advice: what makes it smaller, in the words of the command line.

    Raises:
        EdgeAdError: with the size needed, the size free, and the advice.
    """
    on_cuda = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_cuda else psutil.virtual_memory().available
    if size > free:
        raise EdgeAdError(
            f"the fit would need {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on "
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
