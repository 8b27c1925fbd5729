"""One camera of a stream: watched, and reopened when it is lost or has stalled."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource, Prepared
from edge_ad_runtime.cameras.reader import Freshness, Reader
from edge_ad_runtime.config_table import check_settings, setting
from edge_ad_runtime.errors import CameraError, ConfigError, DataError, counted
from edge_ad_runtime.events import Event, EventKind, Report
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.supervisor import Supervisor

logger = logging.getLogger(__name__)

_OPENING_SECONDS = 10.0
"""How long a network camera may take to answer and to send its first whole picture."""

_PATIENCE_INTERVALS = 2.5
"""A slow camera is lost after so many times the interval between its frames..."""

_LONGEST_PATIENCE_SECONDS = 600.0
"""...but not later than this, unless the stall timeout is longer."""

_MOST_HANGING = 2
"""How many threads of one camera may hang in its driver before no further one is started."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How patient a stream is with its cameras.

    Attributes:
        stall_timeout: seconds without a new, usable frame after which a camera is lost, up to a
            day; 0: never.
        freeze_check: whether a frame identical to the one before counts as no new frame.
        first_delay: seconds before the first attempt to reopen a lost camera, from 0.01.
        longest_delay: the delay doubles up to this many seconds, at most a day, and stays there.
        jitter: share of each delay that is random, 0..1, so that the cameras of a hall that lost
            its power do not all come back in the same second.
        random: gives numbers from 0 to 1.
    """

    stall_timeout: float = setting(5.0, low=0, high=86_400)
    freeze_check: bool = setting(True)
    first_delay: float = setting(0.5, low=0.01, high=86_400)
    longest_delay: float = setting(30.0, low=0.01, high=86_400)
    jitter: float = 0.5
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Refuse what would never end or never wait.

        Raises:
            ConfigError: a value is out of range.
        """
        check_settings(self)
        if self.first_delay > self.longest_delay:
            raise ConfigError(
                f"expected first_delay <= longest_delay, got {self.first_delay:g} and "
                f"{self.longest_delay:g} s"
            )

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait before an attempt, counted from 0."""
        # The exponent is bounded, since a camera may be away for a year.
        full = min(self.longest_delay, self.first_delay * 2.0 ** min(attempt, 30))
        return full * (1 - self.jitter * self.random())


class Feed:
    """The frames of one camera, or of one file.

    A live source that can be reopened is watched. When it stops, freezes, or delivers nothing
    usable for the stall timeout, it is given up, reported as lost, and reopened with growing delays
    for as long as it takes. Its frame numbers go on. A driver that never returns keeps its thread;
    nothing else waits for it.

    Attributes:
        name: of the camera, in results and events.
        lost: whether the camera is lost at the moment.
    """

    def __init__(
        self,
        name: str,
        source: FrameSource | None,
        *,
        reopen: Callable[[], FrameSource] | None = None,
        recovery: Recovery = Recovery(),
        every: int = 1,
        report: Report = lambda event: None,
        prepare: Callable[[Frame], Prepared] | None = None,
        changed: threading.Condition | None = None,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start to read.

        Args:
            name: of the camera.
            source: already open; None: it is lost from the start, and `reopen` is tried.
            reopen: opens it again; None: once lost, the camera stays lost.
            recovery: timeouts and delays.
            every: use every N-th frame only.
            report: takes the events.
            prepare: as for `Reader`.
            changed: is notified when a frame has arrived; shared by the feeds of a loop.
            supervisor: starts the readers' threads.
            clock: monotonic, in seconds.
        """
        self.name = name
        self.lost = False
        self._reopen = reopen
        self._recovery = recovery
        self._every = every
        self._report = report
        self._prepare = prepare
        self._changed = changed or threading.Condition()
        self._supervisor = supervisor
        self._clock = clock
        self._reader: Reader | None = None
        self._freshness: Freshness | None = None
        self._hanging: list[Reader] = []
        self._skipped = 0
        self._first_number = self._next_number = 0
        self._failing = False
        self._slow = False
        self._attempts = 0
        self._lost_at = self._retry_at = clock()
        if source is None:
            self._lose("it could not be opened at the start")
        else:
            self._reader = self._read(source)
            self._live = source.live

    @property
    def skipped(self) -> int:
        """How many frames were replaced by a newer one before they were taken."""
        return self._skipped + (self._reader.skipped if self._reader else 0)

    @property
    def ready(self) -> bool:
        """Whether `take` has something; asked with `changed` held."""
        return self._reader is not None and self._reader.ready

    @property
    def ended(self) -> bool:
        """Whether no frame will ever come."""
        return self._reader is not None and self._reader.ended

    def take(self) -> CapturedFrame | None:
        """Return the next frame if there is one, without waiting; of a camera the newest.

        Raises:
            FrameError: one frame is lost.
            CameraError: the camera is lost and cannot be reopened.
        """
        if self._reader is None:
            return None
        try:
            captured = self._reader.take(timeout=0)
        except CameraError as error:
            if self._reopen is None or not self._live:
                raise
            self._lose(str(error))
            return None
        if captured is None:
            return None
        if self.lost:
            if not self._reader.freshness.seen:
                return None
            self._found()
        self._failing = False
        number = self._first_number + captured.number
        self._next_number = number + 1
        return replace(captured, number=number, camera=self.name)

    def drop_waiting(self) -> None:
        """Skip what a camera has delivered up to now; of files nothing is skipped."""
        if self._live and self._reader is not None:
            self._reader.drop_waiting()

    def fail(self, error: DataError, *, number: int | None = None) -> None:
        """Report a lost frame; of a camera only the first one in a row."""
        if self._failing:
            return
        self._failing = self._live
        details: dict[str, object] = {} if number is None else {"frame": number}
        self._tell("frame failed", str(error), details)

    def watch(self) -> None:
        """Notice a stall, and reopen a lost camera when its time has come. Call it often."""
        if self._reopen is None or (self._reader is not None and not self._live):
            return
        if self._reader is None:
            if self._clock() >= self._retry_at and self._may_retry():
                self._attempts += 1
                self._first_number = self._next_number
                self._reader = self._read(_Reopened(self.name, self._reopen), _OPENING_SECONDS)
            return
        patience = self._patience(self._reader.freshness)
        if patience and self._reader.freshness.seconds > patience:
            self._lose(self._reader.freshness.complaint())

    def close(self, wait: float = 1.0) -> None:
        """Stop reading; wait this many seconds for a driver that is in a read."""
        if self._reader is not None:
            self._reader.close(wait)

    def _read(self, source: FrameSource, grace: float = 0.0) -> Reader:
        self._freshness = Freshness(
            self._clock,
            compare=self._recovery.freeze_check,
            grace=grace,
            before=self._freshness,
        )
        return Reader(
            source,
            every=self._every,
            prepare=self._prepare,
            changed=self._changed,
            freshness=self._freshness,
            supervisor=self._supervisor,
        )

    def _patience(self, freshness: Freshness) -> float:
        """Return the seconds without a new frame after which the camera is lost; 0: never.

        A camera whose frames are further apart than the stall timeout is not lost between them.
        """
        timeout = self._recovery.stall_timeout
        interval = freshness.interval
        if not timeout or interval < timeout:
            return timeout
        patience = max(timeout, min(_PATIENCE_INTERVALS * interval, _LONGEST_PATIENCE_SECONDS))
        if not self._slow:
            self._slow = True
            logger.warning(
                "the camera %s sends a new frame only every %.1f s, while stall_timeout is %g s: "
                "it now counts as lost after %.1f s; set stall_timeout (and read_timeout, if it is "
                "shorter) to more than twice the time between two frames",
                *(self.name, interval, timeout, patience),
            )
        return patience

    def _may_retry(self) -> bool:
        self._hanging = [reader for reader in self._hanging if reader.alive]
        return len(self._hanging) < _MOST_HANGING

    def _lose(self, reason: str) -> None:
        """Give up the present reader and set the time of the next attempt."""
        self._live = True
        if self._reader is not None:
            self._skipped += self._reader.skipped
            self._reader.close(wait=0)
            self._hanging.append(self._reader)
            self._reader = None
        if not self.lost:
            self.lost = True
            self._lost_at = self._clock()
            self._attempts = 0
            self._tell("camera lost", f"the camera {self.name} is lost: {reason}", {})
        else:
            logger.info("the camera %s is still lost: %s", self.name, reason)
        self._retry_at = self._clock() + self._recovery.delay(self._attempts)

    def _found(self) -> None:
        self.lost = False
        seconds = self._clock() - self._lost_at
        self._tell(
            "camera back",
            f"the camera {self.name} is back after {seconds:.1f} s and "
            + counted(self._attempts, "attempt"),
            {"seconds": round(seconds, 3), "attempts": self._attempts},
        )

    def _tell(self, kind: EventKind, message: str, details: dict[str, object]) -> None:
        self._report(Event(kind=kind, message=message, camera=self.name, details=details))


class _Reopened(FrameSource):
    """A live source that is opened by its first read, in the thread that reads it.

    Opening may take as long as a network's timeout, during which other cameras go on.
    """

    live = True

    def __init__(self, name: str, reopen: Callable[[], FrameSource]) -> None:
        """Remember how to open the source."""
        self.name = name
        self._reopen = reopen
        self._source: FrameSource | None = None
        self._cancelled = False

    def read(self) -> CapturedFrame | None:
        """Open the source if it is not open yet, and read.

        Raises:
            FrameError: this one frame is lost.
            CameraError: it cannot be opened, or is lost again.
        """
        if self._source is None:
            try:
                self._source = self._reopen()
            except DataError as error:
                raise CameraError(str(error)) from error
        # A driver that had just been opened when it was given up might wait for ever.
        return None if self._cancelled else self._source.read()

    def cancel(self) -> None:
        """Cancel the read of the source, if it is open; else it is not read at all."""
        self._cancelled = True
        if self._source is not None:
            self._source.cancel()

    def close(self) -> None:
        """Close the source, if it was opened."""
        if self._source is not None:
            self._source.close()
