"""Verdicts and events to another machine, through a spool on disk."""

import json
import threading
import uuid
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event, Report
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import verdict_fields
from edge_ad_runtime.outputs.spool import Spool

_CLOSE_SECONDS = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 30.0


class Refused(OSError):
    """The other side will never take this message; trying again is in vain."""


class Sender(Protocol):
    """A way to another machine."""

    name: str

    def send(self, topic: str, payload: str) -> None:
        """Send a message and wait until the other side has confirmed it.

        Raises:
            Refused: it will never take this one.
            OSError: it did not work; the message is sent again later.
        """

    def close(self) -> None:
        """Let a `send` under way in another thread raise `OSError` soon; sign off."""


class Spooled:
    """Hands each message to a sender, in order, one at a time, until it is confirmed.

    One at a time: when a connection breaks at most one message is in doubt. Each has an `id`, by
    which a receiver recognises the one that came twice.
    """

    def __init__(self, sender: Sender, spool: Spool, report: Report) -> None:
        """Start to send what an earlier run left.

        Args:
            sender: the way.
            spool: holds what is not confirmed.
            report: takes an event when the way breaks and when it is there again; these two events
                do not use the way themselves.
        """
        self._sender = sender
        self._spool = spool
        self._report = report
        self._closing = threading.Event()
        self._failing = False
        name = f"edge-ad {sender.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        """Return the name of the way."""
        return self._sender.name

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Spool a verdict.

        Raises:
            OSError: the spool cannot take it, or had to drop its oldest message.
        """
        self._put(captured.camera, "verdict", verdict_fields(captured, result, captured.camera))

    def event(self, event: Event) -> None:
        """Spool an event.

        Raises:
            OSError: as `write`.
        """
        self._put(event.camera, "event", event.fields())

    def close(self) -> None:
        """Send what can be sent within seconds; the rest waits on disk for the next start."""
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        self._sender.close()
        self._thread.join(_CLOSE_SECONDS)
        self._spool.close()

    def _put(self, camera: str, kind: str, fields: dict[str, object]) -> None:
        topic = f"{camera}/{kind}" if camera else kind
        self._spool.put(topic, json.dumps({"id": uuid.uuid4().hex, **fields}))

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while not (self._closing.is_set() and (self._failing or not len(self._spool))):
            try:
                self._send_next()
                delay = _FIRST_DELAY
            except OSError as error:
                self._tell_failing(error)
                self._closing.wait(delay)
                delay = min(2 * delay, _LONGEST_DELAY)

    def _send_next(self) -> None:
        head = self._spool.head(timeout=0.2)
        if head is None:
            return
        number, topic, payload = head
        try:
            self._sender.send(topic, payload)
        except Refused as error:
            self._report(
                Event(kind="output failed", message=f"{self} refused a message for good: {error}")
            )
        else:
            self._tell_back()
        self._spool.remove(number)

    def _tell_failing(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            message = f"{self} cannot be reached ({error}): verdicts are spooled, and sent later"
            self._report(Event(kind="output failed", message=message))

    def _tell_back(self) -> None:
        if self._failing:
            self._failing = False
            message = f"{self} is back, {len(self._spool)} messages are waiting for it"
            self._report(Event(kind="output back", message=message))
