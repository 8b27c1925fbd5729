"""Frames on demand: each trigger gets one frame of each camera it names, or a failure."""

import json
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import FileIO, UnsupportedOperation
from time import monotonic
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.events import Event, Report

_MOST_WAITING = 1000
_LONGEST_TEXT = 4096
_LONGEST_IDENTITY = 200


@dataclass(kw_only=True)
class Request:
    """A trigger that waits for a frame of one camera.

    Attributes:
        identity: appears in the verdict.
        deadline: on the monotonic clock.
        armed: whether the frames from before the trigger have been put aside.
    """

    identity: str
    deadline: float
    armed: bool = False


class Triggers:
    """The triggers that wait, by camera; requests may come from any thread.

    The loop of a camera looks at the next one (`peek`), takes it off the list when it has a frame
    (`take`), and says how that went (`served`, `failed`). Whatever happens to the loop, `close`
    reports the ones that are left: none is forgotten.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        report: Report,
        *,
        timeout: float = 10.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start with none.

        Args:
            cameras: names of all cameras.
            report: takes the event of a trigger that failed.
            timeout: seconds after which a trigger without a frame has failed.
            clock: monotonic, in seconds.
        """
        self._waiting: dict[str, deque[Request]] = {name: deque() for name in cameras}
        self._taken: dict[str, Request] = {}
        self._closed: dict[str, str] = {}
        self._report = report
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[threading.Condition] = []
        self._finished = False

    def listen(self, changed: threading.Condition) -> None:
        """Notify the condition at each trigger."""
        self._listeners.append(changed)

    def request(self, identity: str = "", camera: str = "") -> str:
        """Ask for a verdict.

        Args:
            identity: appears in the verdict; empty: one is made up.
            camera: which one; empty: each of them gives a verdict.

        Returns:
            The identity.

        Raises:
            ConfigError: there is no such camera, it has ended, the identity is not plain text, or
                far too many triggers wait.
        """
        if len(identity) > _LONGEST_IDENTITY or not identity.isprintable():
            raise ConfigError(
                f"expected up to {_LONGEST_IDENTITY} printable characters as the id of a trigger, "
                f"got {_shown(identity)}"
            )
        if camera and camera not in self._waiting:
            raise ConfigError(
                f"a trigger names the camera {_shown(camera)}: expected one of "
                f"{', '.join(self._waiting)}"
            )
        identity = identity or uuid.uuid4().hex
        with self._lock:
            names = [camera] if camera else [n for n in self._waiting if n not in self._closed]
            if not names or camera in self._closed:
                reason = self._closed.get(camera, "the stream ended")
                raise ConfigError(f"no frame can come from {camera or 'any camera'}: {reason}")
            if any(len(self._waiting[name]) >= _MOST_WAITING for name in names):
                raise ConfigError(
                    f"{_MOST_WAITING} triggers are waiting already: trigger more slowly"
                )
            deadline = self._clock() + self._timeout
            for name in names:
                self._waiting[name].append(Request(identity=identity, deadline=deadline))
        self._notify()
        return identity

    def finish(self) -> None:
        """No further trigger will come: the stream ends after the last one."""
        self._finished = True
        self._notify()

    @property
    def exhausted(self) -> bool:
        """Whether none waits and none will come."""
        return self._finished and not any(self._waiting.values())

    def peek(self, camera: str) -> Request | None:
        """Return the trigger whose turn it is at a camera; nothing changes."""
        with self._lock:
            waiting = self._waiting[camera]
            return waiting[0] if waiting else None

    def expire(self, camera: str) -> None:
        """Report and forget the triggers of a camera that have waited for too long."""
        late = []
        with self._lock:
            waiting = self._waiting[camera]
            while waiting and self._clock() > waiting[0].deadline:
                late.append(waiting.popleft())
        for request in late:
            self._fail(request, camera, f"no frame within {self._timeout:g} s")

    def take(self, camera: str) -> None:
        """Take the trigger whose turn it is off the list: its frame is there."""
        with self._lock:
            self._taken[camera] = self._waiting[camera].popleft()

    def served(self, camera: str) -> None:
        """Note that the trigger taken last has got its verdict."""
        with self._lock:
            self._taken.pop(camera, None)

    def failed(self, camera: str, reason: str) -> None:
        """Report that the trigger taken last gets no verdict."""
        with self._lock:
            request = self._taken.pop(camera, None)
        if request is not None:
            self._fail(request, camera, reason)

    def close(self, camera: str, reason: str) -> None:
        """Fail whatever is left at a camera, and refuse further triggers for it."""
        with self._lock:
            self._closed.setdefault(camera, reason)
            left = list(self._waiting[camera])
            self._waiting[camera].clear()
        self.failed(camera, reason)
        for request in left:
            self._fail(request, camera, reason)

    def _fail(self, request: Request, camera: str, reason: str) -> None:
        self._report(
            Event(
                kind="trigger failed",
                message=f"the trigger {request.identity} failed at {camera}: {reason}",
                camera=camera,
                details={"trigger": request.identity},
            )
        )

    def _notify(self) -> None:
        for changed in self._listeners:
            with changed:
                changed.notify_all()


def take_on_demand(triggers: Triggers, feed: Feed) -> CapturedFrame | None:
    """Return the frame for the trigger whose turn it is at a camera, if both are there.

    Of a camera it is one that was captured after the trigger was noticed. The trigger is off the
    list then: say `served` or `failed`.

    Raises:
        DataError: one frame is lost; the trigger waits for the next one.
        CameraError: the camera is lost for good.
    """
    triggers.expire(feed.name)
    request = triggers.peek(feed.name)
    if request is None:
        return None
    if not request.armed:
        request.armed = True
        feed.drop_waiting()
    captured = feed.take()
    if captured is None:
        return None
    triggers.take(feed.name)
    return replace(captured, trigger=request.identity)


def request_by_text(triggers: Triggers, text: str) -> str:
    """Ask for a verdict as a text says.

    Args:
        triggers: take the request.
        text: empty, `ID`, `ID CAMERA`, or a JSON object with `id` and `camera`, both optional.

    Returns:
        The identity of the trigger.

    Raises:
        ConfigError: the text is something else, or names a camera that is not there.
    """
    if len(text) > _LONGEST_TEXT:
        raise ConfigError(
            f"expected a trigger of at most {_LONGEST_TEXT} characters, got {len(text)}"
        )
    text = text.strip()
    if text.startswith("{"):
        return _request_by_object(triggers, text)
    identity, _, camera = text.partition(" ")
    return triggers.request(identity, camera.strip())


def _request_by_object(triggers: Triggers, text: str) -> str:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"expected a trigger as a JSON object, got {_shown(text)}: {error}"
        ) from error
    unknown = set(fields) - {"id", "camera"}
    if unknown or not all(isinstance(value, str) for value in fields.values()):
        raise ConfigError(
            f"expected a trigger with the texts 'id' and 'camera' only, got {_shown(text)}"
        )
    return triggers.request(fields.get("id", ""), fields.get("camera", ""))


def accept(triggers: Triggers, data: bytes, report: Report) -> None:
    """Ask for a verdict where nobody waits for an answer: a refusal is an event.

    Args:
        triggers: take the request.
        data: as `request_by_text`, in UTF-8.
        report: takes the event.
    """
    try:
        request_by_text(triggers, data.decode())
    except UnicodeDecodeError as error:
        _refuse(data, f"expected a trigger in UTF-8, got byte 0x{data[error.start]:02x}", report)
    except ConfigError as error:
        _refuse(data, str(error), report)


class ByteLines(Protocol):
    """A binary file that gives lines."""

    def readline(self, limit: int = -1, /) -> bytes:
        """Return the next line with its end, at most this many bytes of it; empty: the end."""


def standard_input() -> ByteLines:
    """Return standard input without Python's buffer.

    The lock of the buffer, held by a thread that waits for a line, makes the end of Python a fatal
    error.

    Raises:
        ConfigError: it was closed before this process started.
    """
    if sys.stdin is None:
        raise ConfigError(
            "triggers by 'stdin' need lines on standard input, but standard input is closed"
        )
    try:
        return FileIO(sys.stdin.fileno(), closefd=False)
    except UnsupportedOperation:  # it is in memory, where nobody waits
        return sys.stdin.buffer


def accept_lines(triggers: Triggers, lines: ByteLines, report: Report) -> None:
    """Take each line as a trigger; the end of the lines ends the stream.

    A failure to read them, which is an `OSError`, leaves the stream running.
    """
    whole = True
    while line := lines.readline(4 * _LONGEST_TEXT):
        # What follows a line that is far too long is the rest of it, not another trigger.
        if whole:
            accept(triggers, line, report)
        whole = line.endswith(b"\n")
    triggers.finish()


def _refuse(data: bytes, reason: str, report: Report) -> None:
    trigger = data[:80].decode(errors="replace").strip()
    report(Event(kind="trigger failed", message=reason, details={"trigger": trigger}))


def _shown(text: str) -> str:
    """Return the head of what a stranger sent, fit for messages: escaped, and short."""
    return ascii(text[:80])
