"""Read a source in a thread of its own, so that capturing and scoring overlap."""

import threading
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import monotonic

import numpy as np

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource, Prepared
from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.model.image import Frame, check_frame
from edge_ad_runtime.supervisor import Supervisor

_READ_AHEAD = 4
_JOIN_SECONDS = 1.0
_PAUSE_SECONDS = 0.01
"""A driver that fails again and again at once must not take a whole core."""

_INTERVALS = 3

_FINGERPRINT_STEP = 8
"""Only every eighth pixel each way is compared: the noise of a sensor is everywhere."""


class Freshness:
    """When a live source last delivered a usable frame that differed from the one before.

    Written by the thread that reads, asked by the one that watches.

    Attributes:
        seen: whether a frame differed from the one before it. One frame alone proves nothing: a
            frozen camera sends it too.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        *,
        compare: bool = True,
        grace: float = 0,
        before: "Freshness | None" = None,
    ) -> None:
        """Start to wait for the first frame.

        Args:
            clock: monotonic, in seconds.
            compare: False for a camera that may well deliver the same frame for long, such as a
                rendered or strongly denoised scene: every frame counts as new then.
            grace: further seconds that opening the source may take.
            before: that of the same camera's last connection. Its last frame is the one that the
                first frame of this connection is compared with, so that a camera which sends only
                one frame per connection still works.
        """
        self._clock = clock
        self._compare = compare
        self._since = clock() + grace
        self._print: int | None = before._print if before else None
        self._last_new: float | None = before._last_new if before else None
        self._intervals: deque[float] = deque(
            before._intervals if before else (), maxlen=_INTERVALS
        )
        self._repeated = 0
        self._failures = 0
        self._last_error = ""
        self.seen = False

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
        if self._last_new is not None:
            self._intervals.append(self._since - self._last_new)
        self._last_new = self._since
        self._repeated = self._failures = 0

    def failed(self, error: DataError) -> None:
        """Note a frame that could not be read."""
        self._failures += 1
        self._last_error = str(error)

    @property
    def seconds(self) -> float:
        """How long there has been nothing new."""
        return self._clock() - self._since

    @property
    def interval(self) -> float:
        """Seconds between two new frames: the shortest of the last three intervals.

        The shortest one, so that an outage does not count; 0 before there are three.
        """
        intervals = tuple(self._intervals)
        return min(intervals) if len(intervals) == _INTERVALS else 0.0

    def complaint(self) -> str:
        """Say what was wrong since the last new frame."""
        waited = f"for {self.seconds:.1f} s"
        if self._repeated > self._failures:
            return f"frozen {waited}: {self._repeated} times the same frame"
        if self._failures:
            return f"no usable frame {waited}, {self._failures} failed ({self._last_error})"
        return f"no frame {waited}"


class Reader:
    """The frames of a source, read ahead.

    Of a live source only the newest frame is kept, and those it replaces are counted. Of files up
    to four frames are kept, and reading waits while nobody takes them: memory stays constant.

        with Reader(open_source("0")) as reader:
            while (captured := reader.take()) is not None:
                ...

    Attributes:
        freshness: when the source last delivered something new, and what was wrong since.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        every: int = 1,
        prepare: Callable[[Frame], Prepared] | None = None,
        changed: threading.Condition | None = None,
        freshness: Freshness | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Start to read; the reader owns the source from here on and closes it.

        Args:
            source: where frames come from.
            every: use every N-th frame only. Counted here, where every frame passes: whoever takes
                frames may miss some.
            prepare: makes the model's input from a frame, here in the reader's thread. Not used for
                a live source, most of whose frames may never be looked at.
            changed: is notified when something can be taken; several readers may share it.
            freshness: takes note of the frames of a live source.
            supervisor: starts the thread.
        """
        self.freshness = freshness or Freshness()
        self._source = source
        self._every = every
        self._next_wanted = 0
        self._prepare = prepare
        self._waiting: deque[CapturedFrame | DataError | CameraError] = deque()
        self._changed = changed or threading.Condition()
        self._skipped = 0
        self._closing = threading.Event()
        self._ended = False
        supervisor = supervisor or Supervisor()
        self._thread = supervisor.start(f"reader {source.name}", self._run, died=self._broke_off)

    @property
    def skipped(self) -> int:
        """How many frames of a live source were replaced by a newer one before they were taken."""
        return self._skipped

    @property
    def ready(self) -> bool:
        """Whether `take` has a frame or an error to give; asked with `changed` held."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether all frames have been taken and none will come."""
        with self._changed:
            return self._ended and not self._waiting

    @property
    def alive(self) -> bool:
        """Whether the thread still runs: after `close`, whether the driver has not returned."""
        return self._thread.is_alive()

    def take(self, timeout: float | None = None) -> CapturedFrame | None:
        """Return the next frame, of a live source the newest; None: no more, or none in time.

        Args:
            timeout: seconds to wait for a frame; None: as long as the source lasts.

        Raises:
            FrameError: one frame is lost; the next call goes on.
            CameraError: the source is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._changed.notify_all()
        if isinstance(item, CapturedFrame):
            return item
        raise item

    def drop_waiting(self) -> None:
        """Skip the frames that nobody has taken."""
        with self._changed:
            self._drop_older()

    def close(self, wait: float = _JOIN_SECONDS) -> None:
        """Stop reading; the source is closed once its driver returns, for which `wait` seconds."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._source.cancel()
        self._thread.join(wait)

    def __enter__(self) -> "Reader":
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the reader."""
        self.close()

    def _run(self) -> None:
        # The thread that reads is the one that closes: OpenCV crashes when a capture is released
        # during a read.
        with self._source:
            self._pump()
        self._end()

    def _broke_off(self, error: Exception) -> None:
        """End with an error that nobody foresaw: drivers and plug-ins may raise anything."""
        # Its text may hold an address with a password; the log has it.
        reason = CameraError(
            f"reading {self._source.name} broke off with an unexpected {type(error).__name__}: "
            "the log has the traceback"
        )
        self._end(reason)

    def _end(self, reason: CameraError | None = None) -> None:
        with self._changed:
            if reason is not None:
                self._waiting.append(reason)
            self._ended = True
            self._changed.notify_all()

    def _pump(self) -> None:
        """Read until the end, a lost camera or `close`."""
        while not self._closing.is_set():
            try:
                captured = self._source.read()
                if captured is None:
                    return
                item = self._examined(captured)
            except DataError as error:
                self.freshness.failed(error)
                self._put(error)
                if self._source.live:
                    self._closing.wait(_PAUSE_SECONDS)
            except CameraError as error:
                self._put(error)
                return
            else:
                if item is not None:
                    self._put(item)

    def _examined(self, captured: CapturedFrame) -> CapturedFrame | None:
        """Return the frame with what is to be made of it; None: it is not the N-th.

        Raises:
            DataError: it is not a frame at all.
        """
        if self._source.live:
            self.freshness.arrived(captured.frame)
        if captured.number < self._next_wanted:
            return None
        self._next_wanted = captured.number + self._every
        if self._prepare is None or self._source.live:
            return captured
        return replace(captured, prepared=self._prepare(captured.frame))

    def _put(self, item: CapturedFrame | DataError | CameraError) -> None:
        with self._changed:
            if self._source.live and isinstance(item, CapturedFrame):
                self._drop_older()
            if len(self._waiting) >= _READ_AHEAD:
                self._changed.wait_for(
                    lambda: len(self._waiting) < _READ_AHEAD or self._closing.is_set()
                )
            self._waiting.append(item)
            self._changed.notify_all()

    def _drop_older(self) -> None:
        """Make room for a newer frame; errors stay, each of them is reported."""
        errors = [item for item in self._waiting if not isinstance(item, CapturedFrame)]
        self._skipped += len(self._waiting) - len(errors)
        self._waiting = deque(errors)


def _fingerprint(frame: Frame) -> int:
    sparse = frame[::_FINGERPRINT_STEP, ::_FINGERPRINT_STEP]
    return zlib.crc32(np.ascontiguousarray(sparse).tobytes())
