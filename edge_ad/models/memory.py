"""Whether something fits into memory, asked before the work begins."""

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
