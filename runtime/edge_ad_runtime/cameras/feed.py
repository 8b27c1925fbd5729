"""One camera of a stream, watched, and brought back when it is lost."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from edge_ad_runtime.cameras import CapturedFrame, FrameSource
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.cameras.freshness import Freshness
from edge_ad_runtime.cameras.reader import Reader
from edge_ad_runtime.cameras.recovery import Recovery, Reopened
from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.events import Event, EventKind, Report
from edge_ad_runtime.model.image import Frame

logger = logging.getLogger(__name__)

_OPENING_SECONDS = 10.0
"""A network camera may take so long to answer and to send its first whole picture."""

_MOST_HANGING = 2
"""How many threads of one camera may hang in its driver before no further one is started."""


class Feed:
    """The frames of one camera, or of one file.

    A live source that can be opened again is watched: one that stops, freezes, or delivers nothing
    usable for the stall timeout is given up, reported, and opened anew with growing delays, for as
    long as it takes. Its frame numbers go on. A driver that never returns keeps its thread; the
    rest of the program does not wait for it.

    Attributes:
        name: of the camera, in results and events.
        lost: whether the camera is away at the moment.
    """

    def __init__(
        self,
        name: str,
        source: FrameSource | None,
        *,
        reopen: Callable[[], FrameSource] | None = None,
        recovery: Recovery = Recovery(),  # noqa: B008  (frozen)
        every: int = 1,
        report: Report = lambda event: None,
        prepare: Callable[[Frame], Prepared] | None = None,
        changed: threading.Condition | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start to read.

        Args:
            name: of the camera.
            source: already open; None: it is lost from the start, and `reopen` is tried.
            reopen: opens it again; None: a lost camera is the end of it.
            recovery: timeouts and delays.
            every: of so many frames only the first one is looked at.
            report: takes the events.
            prepare: as for `Reader`.
            changed: is notified when a frame has come; shared by the feeds of a loop.
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
        self._clock = clock
        self._reader: Reader | None = None
        self._hanging: list[Reader] = []
        self._skipped = 0
        self._first_number = self._next_number = 0
        self._failing = False
        self._attempts = 0
        self._lost_at = self._retry_at = clock()
        if source is None:
            self._lose("it could not be opened at the start")
        else:
            self._reader = self._read(source)
            self._live = source.live

    @property
    def skipped(self) -> int:
        """How many frames gave way to a newer one before they were looked at."""
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
            DataError: one frame is lost.
            CameraError: the camera is lost and there is no way to open it again.
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
        if number % self._every:
            return None
        return replace(captured, number=number, camera=self.name)

    def drop_waiting(self) -> None:
        """Put aside what a camera delivered up to now; of files nothing."""
        if self._live and self._reader is not None:
            self._reader.drop_waiting()

    def fail(self, error: DataError, *, number: int | None = None) -> None:
        """Report a frame that is lost; of a camera only the first one of a row."""
        if self._failing:
            return
        self._failing = self._live
        details: dict[str, object] = {} if number is None else {"frame": number}
        self._tell("frame failed", str(error), details)

    def watch(self) -> None:
        """Notice a stall, and open a lost camera again when its time has come. Call it often."""
        if self._reopen is None or (self._reader is not None and not self._live):
            return
        if self._reader is None:
            if self._clock() >= self._retry_at and self._may_retry():
                self._attempts += 1
                self._first_number = self._next_number
                self._reader = self._read(Reopened(self.name, self._reopen), _OPENING_SECONDS)
            return
        timeout = self._recovery.stall_timeout
        if timeout and self._reader.freshness.seconds > timeout:
            self._lose(self._reader.freshness.complaint())

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()

    def _read(self, source: FrameSource, grace: float = 0.0) -> Reader:
        compare = self._recovery.freeze_check
        freshness = Freshness(self._clock, compare=compare, grace=grace)
        return Reader(source, prepare=self._prepare, changed=self._changed, freshness=freshness)

    def _may_retry(self) -> bool:
        self._hanging = [reader for reader in self._hanging if reader.alive]
        return len(self._hanging) < _MOST_HANGING

    def _lose(self, reason: str) -> None:
        """Give the present reader up and set the time of the next attempt."""
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
            f"the camera {self.name} is back after {seconds:.1f} s and {self._attempts} attempts",
            {"seconds": round(seconds, 3), "attempts": self._attempts},
        )

    def _tell(self, kind: EventKind, message: str, details: dict[str, object]) -> None:
        self._report(Event(kind=kind, message=message, camera=self.name, details=details))
