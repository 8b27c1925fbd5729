"""Read a source in a thread of its own, so that capturing and scoring overlap."""

import threading
from collections import deque
from types import TracebackType

from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.sources import CapturedFrame, FrameSource

_READ_AHEAD = 4
_JOIN_SECONDS = 1.0


class Reader:
    """Frames of a source, read ahead.

    Of a live source only the newest frame is kept, and those it replaces are counted. Of files up
    to four frames are kept, and reading waits while nobody takes them: memory stays constant.

        with Reader(open_source("0")) as reader:
            while (captured := reader.take()) is not None:
                ...
    """

    def __init__(self, source: FrameSource) -> None:
        """Start to read; the source belongs to the reader from here on, which closes it."""
        self._source = source
        self._waiting: deque[CapturedFrame | DataError | CameraError] = deque()
        self._changed = threading.Condition()
        self._skipped = 0
        self._closing = False
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
    def ended(self) -> bool:
        """Whether all frames have been taken and none will come."""
        with self._changed:
            return self._ended and not self._waiting

    def take(self, timeout: float | None = None) -> CapturedFrame | None:
        """Return the next frame, of a live source the newest; None: no more, or none in time.

        Args:
            timeout: seconds to wait for a frame; None: as long as the source lasts.

        Raises:
            DataError: one frame is lost; the next call goes on.
            CameraError: the source is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout)
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
            elif self._ended and self._crashed and not self._closing:
                raise CameraError(
                    f"reading {self._source.name} broke off by a fault in the program: "
                    "report it with the traceback above"
                )
            else:
                return None
        if isinstance(item, CapturedFrame):
            return item
        raise item

    def close(self) -> None:
        """Stop reading and close the source, once the driver returns."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_JOIN_SECONDS)

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
        while not self._closing:
            try:
                captured = self._source.read()
            except DataError as error:
                self._put(error)
            except CameraError as error:
                self._put(error)
                return
            else:
                if captured is None:
                    return
                self._put(captured)

    def _put(self, item: CapturedFrame | DataError | CameraError) -> None:
        with self._changed:
            if self._source.live and isinstance(item, CapturedFrame):
                self._drop_older()
            self._changed.wait_for(lambda: len(self._waiting) < _READ_AHEAD or self._closing)
            self._waiting.append(item)
            self._changed.notify_all()

    def _drop_older(self) -> None:
        """Make room for a newer frame; errors stay, each of them is reported."""
        errors = [item for item in self._waiting if not isinstance(item, CapturedFrame)]
        self._skipped += len(self._waiting) - len(errors)
        self._waiting = deque(errors)
