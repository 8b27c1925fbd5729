"""Read a source in a thread of its own, so that capturing and scoring overlap."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from edge_ad_runtime.cameras import CapturedFrame, FrameSource
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.cameras.freshness import Freshness
from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.model.image import Frame

_READ_AHEAD = 4
_JOIN_SECONDS = 1.0
_PAUSE_SECONDS = 0.01
"""A driver that fails at once and again must not take a whole core."""


class Reader:
    """Frames of a source, read ahead.

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
        prepare: Callable[[Frame], Prepared] | None = None,
        changed: threading.Condition | None = None,
        freshness: Freshness | None = None,
    ) -> None:
        """Start to read; the source belongs to the reader from here on, which closes it.

        Args:
            source: where frames come from.
            prepare: makes the model's input of a frame, here in the reader's thread. Not used for a
                live source, most of whose frames may never be looked at.
            changed: is notified when something can be taken; several readers may share it.
            freshness: takes note of the frames of a live source.
        """
        self.freshness = freshness or Freshness()
        self._source = source
        self._prepare = prepare
        self._waiting: deque[CapturedFrame | DataError | CameraError] = deque()
        self._changed = changed or threading.Condition()
        self._skipped = 0
        self._closing = threading.Event()
        self._ended = False
        self._crashed = True
        name = f"edge-ad reader {source.name}"
        # A daemon: a driver that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def skipped(self) -> int:
        """How many frames of a live source were replaced by a newer one before they were taken."""
        return self._skipped

    @property
    def ready(self) -> bool:
        """Whether `take` would not wait; asked with `changed` held."""
        return bool(self._waiting) or self._ended

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
            DataError: one frame is lost; the next call goes on.
            CameraError: the source is lost.
        """
        with self._changed:
            if not self.ready:
                self._changed.wait_for(lambda: self.ready, timeout)
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
            elif self._ended and self._crashed and not self._closing.is_set():
                raise CameraError(
                    f"reading {self._source.name} broke off by a fault in the program: "
                    "report it with the traceback above"
                )
            else:
                return None
        if isinstance(item, CapturedFrame):
            return item
        raise item

    def drop_waiting(self) -> None:
        """Skip the frames that nobody has taken."""
        with self._changed:
            self._drop_older()

    def close(self, wait: float = _JOIN_SECONDS) -> None:
        """Stop reading and close the source, once the driver returns; wait so many seconds."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._source.cancel()
        self._thread.join(wait)

    def __enter__(self) -> "Reader":
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the reader."""
        self.close()

    def _run(self) -> None:
        # The thread that reads is the one that closes: OpenCV crashes when a capture is released
        # during a read.
        with self._source:
            try:
                self._pump()
                self._crashed = False
            finally:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()

    def _pump(self) -> None:
        """Read until the end, a lost camera or `close`."""
        while not self._closing.is_set():
            try:
                captured = self._read()
            except DataError as error:
                self.freshness.failed(error)
                self._put(error)
                if self._source.live:
                    self._closing.wait(_PAUSE_SECONDS)
            except CameraError as error:
                self._put(error)
                return
            else:
                if captured is None:
                    return
                self._put(captured)

    def _read(self) -> CapturedFrame | None:
        captured = self._source.read()
        if captured is None:
            return None
        if self._source.live:
            self.freshness.arrived(captured.frame)
            return captured
        if self._prepare is None:
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
