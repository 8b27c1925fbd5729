"""Verdicts on demand: each trigger gets one verdict of each camera it names, or a failure."""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.events import Event, Report

_MOST_WAITING = 1000


@dataclass(kw_only=True)
class Request:
    """A trigger that waits for a frame of one camera.

    Attributes:
        identity: stands in the verdict.
        deadline: on the monotonic clock.
        armed: whether the frames from before the trigger have been put aside.
    """

    identity: str
    deadline: float
    armed: bool = False


class Triggers:
    """The triggers that wait, by camera; requests may come from any thread."""

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
            identity: stands in the verdict; empty: one is made up.
            camera: which one; empty: each of them gives a verdict.

        Returns:
            The identity.

        Raises:
            DataError: there is no such camera, or far too many triggers wait.
        """
        identity = identity or uuid.uuid4().hex
        names = [camera] if camera else list(self._waiting)
        unknown = [name for name in names if name not in self._waiting]
        if unknown:
            raise DataError(
                f"a trigger names the camera {camera!r}: expected one of {', '.join(self._waiting)}"
            )
        with self._lock:
            if any(len(self._waiting[name]) >= _MOST_WAITING for name in names):
                raise DataError(
                    f"{_MOST_WAITING} triggers are waiting already: trigger more slowly"
                )
            for name in names:
                deadline = self._clock() + self._timeout
                self._waiting[name].append(Request(identity=identity, deadline=deadline))
        self._notify()
        return identity

    def fail(self, identity: str, camera: str, reason: str) -> None:
        """Report that a trigger will get no verdict."""
        self._report(
            Event(
                kind="trigger failed",
                message=f"the trigger {identity} got no verdict of {camera}: {reason}",
                camera=camera,
                details={"trigger": identity},
            )
        )

    def finish(self) -> None:
        """No further trigger will come: the stream ends behind the last one."""
        self._finished = True
        self._notify()

    @property
    def exhausted(self) -> bool:
        """Whether none waits and none will come."""
        return self._finished and not any(self._waiting.values())

    def next(self, camera: str) -> Request | None:
        """Return the trigger whose turn it is at a camera; those that are too late fail."""
        waiting = self._waiting[camera]
        while waiting and self._clock() > waiting[0].deadline:
            late = waiting.popleft()
            self.fail(late.identity, camera, f"no frame within {self._timeout:g} s")
        return waiting[0] if waiting else None

    def served(self, camera: str) -> None:
        """Take the trigger whose turn it was off the list."""
        self._waiting[camera].popleft()

    def close(self, camera: str, reason: str) -> None:
        """Fail whatever still waits at a camera."""
        waiting = self._waiting[camera]
        while waiting:
            self.fail(waiting.popleft().identity, camera, reason)

    def _notify(self) -> None:
        for changed in self._listeners:
            with changed:
                changed.notify_all()
