"""When a camera counts as lost, and how soon it is tried again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from edge_ad_runtime.cameras import CapturedFrame, FrameSource
from edge_ad_runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How patient a stream is with its cameras.

    Attributes:
        stall_timeout: seconds without a new, usable frame after which a camera is lost; 0: never.
        freeze_check: whether identical frames count as no new frame.
        first_delay: seconds before the first attempt to open a lost camera again.
        longest_delay: the delay doubles up to so many seconds, and stays there for ever.
        jitter: share of each delay that is random, 0..1, so that the cameras of a hall that lost
            its power do not all come back in the same second.
        random: gives numbers from 0 to 1.
    """

    stall_timeout: float = 5.0
    freeze_check: bool = True
    first_delay: float = 0.5
    longest_delay: float = 30.0
    jitter: float = 0.5
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Refuse what would never end or never wait."""
        if self.stall_timeout < 0:
            raise DataError(f"expected a stall timeout from 0 s on, got {self.stall_timeout}")
        if not 0 < self.first_delay <= self.longest_delay:
            raise DataError(
                f"expected 0 < first delay <= longest delay, got {self.first_delay} and "
                f"{self.longest_delay} s"
            )

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait before an attempt, counted from 0."""
        # The exponent is bounded, since a camera may be away for a year.
        full = min(self.longest_delay, self.first_delay * 2.0 ** min(attempt, 30))
        return full * (1 - self.jitter * self.random())


class Reopened(FrameSource):
    """A live source that is opened by its first read, in the thread that reads it.

    Opening may take as long as a network's timeout, during which other cameras go on.
    """

    live = True

    def __init__(self, name: str, reopen: Callable[[], FrameSource]) -> None:
        """Remember how to open the source."""
        self.name = name
        self._reopen = reopen
        self._source: FrameSource | None = None

    def read(self) -> CapturedFrame | None:
        """Open if it is not, and read.

        Raises:
            DataError: this one frame is lost.
            CameraError: it cannot be opened, or is lost again.
        """
        if self._source is None:
            self._source = self._reopen()
        return self._source.read()

    def cancel(self) -> None:
        """Pass it on."""
        if self._source is not None:
            self._source.cancel()

    def close(self) -> None:
        """Close the source, if it was opened."""
        if self._source is not None:
            self._source.close()
