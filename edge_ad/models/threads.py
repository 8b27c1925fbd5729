"""Blocks of work side by side on a CPU, each on one thread."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


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
