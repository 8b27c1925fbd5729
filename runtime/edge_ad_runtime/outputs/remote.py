"""Send verdicts and events to another machine, in order, each until it is confirmed."""

import json
import math
import threading
import uuid
from time import monotonic
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.errors import counted
from edge_ad_runtime.events import Event, EventKind, Report
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import SETTLED_SECONDS, Output, event_fields, verdict_fields
from edge_ad_runtime.outputs.spool import Spool, SpoolError
from edge_ad_runtime.supervisor import Supervisor

_CLOSE_SECONDS = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 30.0
_REFUSAL_SECONDS = 600.0
"""Without a refusal; the next one after that is reported again."""


class Refused(OSError):
    """The other side will never take this message; trying again is pointless."""


class Sender(Protocol):
    """A connection to another machine."""

    name: str

    def send(self, topic: str, payload: str) -> None:
        """Send a message and wait until the other side has confirmed it.

        Raises:
            Refused: it will never take this one.
            OSError: it did not work; the message is sent again later.
        """

    def cancel(self) -> None:
        """Let a `send` under way in another thread raise `OSError` soon, and every later one."""

    def close(self) -> None:
        """Sign off, when no `send` is under way any more."""


class Spooled(Output):
    """Hands each message to a sender, in order, one at a time, until it is confirmed.

    One at a time: when a connection breaks, at most one message is in doubt. Each has an `id`, by
    which a receiver recognises a message that came twice.

    Attributes:
        lost: verdicts that the other side refused; what the spool loses is an event of its own.
    """

    def __init__(
        self, sender: Sender, spool: Spool, report: Report, supervisor: Supervisor | None = None
    ) -> None:
        """Start to send what an earlier run left.

        Args:
            sender: the connection.
            spool: holds what is not confirmed.
            report: takes an event when the connection breaks and when it works again; these
                events are not sent through it.
            supervisor: starts the thread, again when it failed.
        """
        self.name = sender.name
        self.lost = 0
        self._sender = sender
        self._spool = spool
        self._report = report
        self._own_event: Event | None = None
        self._closing = threading.Event()
        self._away = False
        self._away_told = False
        self._failed_at = self._refused_at = -math.inf
        self._thread = (supervisor or Supervisor()).start(self.name, self._run)

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Spool a verdict.

        Raises:
            OSError: the spool cannot take it, or had to drop its oldest message.
        """
        self._put(captured.camera, "verdict", verdict_fields(captured, result, captured.camera))

    def event(self, event: Event) -> None:
        """Spool an event, except those about this connection: each would cause the next one.

        Raises:
            OSError: as `write`.
        """
        if event is not self._own_event and event.details.get("thread") != self.name:
            self._put(event.camera, "event", event_fields(event))

    def close(self) -> None:
        """Send what can be sent within seconds; the rest waits on disk for the next start."""
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        self._sender.cancel()
        self._thread.join(_CLOSE_SECONDS)
        self._sender.close()
        self._spool.close()

    def _put(self, camera: str, kind: str, fields: dict[str, object]) -> None:
        topic = f"{camera}/{kind}" if camera else kind
        self._spool.put(topic, json.dumps({"id": uuid.uuid4().hex, **fields}))

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while not (self._closing.is_set() and (self._away or not len(self._spool))):
            try:
                self._send_next()
                delay = _FIRST_DELAY
                if self._away_told:
                    self._settle()
            except OSError as error:
                self._away, self._failed_at = True, monotonic()
                if not self._away_told:
                    self._away_told = True
                    reason = f"cannot be reached ({error}): verdicts are spooled, and sent later"
                    if isinstance(error, SpoolError):  # the other side is not to blame
                        reason = f"sends nothing until its spool works again: {error}"
                    self._tell("output failed", reason)
                self._closing.wait(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _send_next(self) -> None:
        head = self._spool.head(timeout=0.2)
        for notice in self._spool.take_notices():
            self._tell("output failed", notice)
        if head is None:
            return
        number, topic, payload = head
        try:
            self._sender.send(topic, payload)
        except Refused as error:
            self.lost += topic.endswith("verdict")
            # Not for each: some receivers refuse everything, some all events, or every other part.
            before, self._refused_at = self._refused_at, monotonic()
            if self._refused_at - before > _REFUSAL_SECONDS:
                reason = f"refused a message for good ({error}): what it refuses is lost"
                self._tell("output failed", reason)
        self._away = False
        self._spool.remove(number)

    def _settle(self) -> None:
        """Report that the connection works again, once it has held for a while."""
        if not self._away and monotonic() - self._failed_at >= SETTLED_SECONDS:
            self._away_told = False
            waiting = len(self._spool)
            self._tell("output back", f"is back, with {counted(waiting, 'message')} waiting for it")

    def _tell(self, kind: EventKind, message: str) -> None:
        self._own_event = Event(kind=kind, message=f"{self.name} {message}")
        self._report(self._own_event)
