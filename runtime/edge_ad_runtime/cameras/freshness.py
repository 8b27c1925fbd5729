"""Tell a camera that works from one that delivers nothing, nothing new, or nonsense."""

import zlib
from collections.abc import Callable
from time import monotonic

import numpy as np

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.image import Frame, check_frame

_STEP = 8
"""Only every eighth pixel each way is compared: the noise of a sensor is everywhere."""


class Freshness:
    """When a live source last delivered a usable frame that differed from the one before.

    Written by the thread that reads, asked by the one that watches.
    """

    def __init__(
        self, clock: Callable[[], float] = monotonic, *, compare: bool = True, grace: float = 0
    ) -> None:
        """Start to wait for the first frame.

        Args:
            clock: monotonic, in seconds.
            compare: False for a camera that may well deliver the same frame for long, such as a
                rendered or strongly denoised scene: every frame is new then.
            grace: seconds that opening the source may take on top.
        """
        self._clock = clock
        self._compare = compare
        self._since = clock() + grace
        self._print: int | None = None
        self._repeated = 0
        self._failures = 0
        self._last_error = ""
        self.seen = False
        """Whether a frame differed from the one before it: a frozen camera sends a first frame."""

    def arrived(self, frame: Frame) -> None:
        """Note a frame.

        Raises:
            DataError: it is not a frame at all.
        """
        check_frame(frame)
        fingerprint = _fingerprint(frame) if self._compare else None
        if fingerprint is not None and fingerprint == self._print:
            self._repeated += 1
            return
        self.seen = self._print is not None or not self._compare
        self._print = fingerprint
        self._since = self._clock()
        self._repeated = self._failures = 0

    def failed(self, error: DataError) -> None:
        """Note a frame that could not be read."""
        self._failures += 1
        self._last_error = str(error)

    @property
    def seconds(self) -> float:
        """How long there has been nothing new."""
        return self._clock() - self._since

    def complaint(self) -> str:
        """Say what was wrong since the last new frame."""
        waited = f"for {self.seconds:.1f} s"
        if self._repeated > self._failures:
            return f"frozen {waited}: {self._repeated} times the same frame"
        if self._failures:
            return f"no usable frame {waited}, {self._failures} failed ({self._last_error})"
        return f"no frame {waited}"


def _fingerprint(frame: Frame) -> int:
    return zlib.crc32(np.ascontiguousarray(frame[::_STEP, ::_STEP]).tobytes())
