"""Triggers as text, from standard input, MQTT or HTTP."""

import json
import threading
from typing import TextIO

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.events import Event, Report
from edge_ad_runtime.stream.triggers import Triggers


def request_by_text(triggers: Triggers, text: str) -> str:
    """Ask for a verdict as a text says.

    Args:
        triggers: take the request.
        text: empty, `ID`, `ID CAMERA`, or a JSON object with `id` and `camera`, both optional.

    Returns:
        The identity of the trigger.

    Raises:
        DataError: the text is something else, or names a camera that is not there.
    """
    text = text.strip()
    if text.startswith("{"):
        return _by_object(triggers, text)
    identity, _, camera = text.partition(" ")
    return triggers.request(identity, camera.strip())


def _by_object(triggers: Triggers, text: str) -> str:
    try:
        fields = json.loads(text)
        unknown = sorted(set(fields) - {"id", "camera"})
    except ValueError as error:
        raise DataError(
            f"expected a trigger as a JSON object, got {text[:80]!r}: {error}"
        ) from error
    if unknown or not all(isinstance(value, str) for value in fields.values()):
        raise DataError(
            f"expected a trigger with the texts 'id' and 'camera' only, got {text[:80]!r}"
        )
    return triggers.request(fields.get("id", ""), fields.get("camera", ""))


def accept(triggers: Triggers, text: str, report: Report) -> None:
    """Ask for a verdict where nobody waits for an answer: a refusal is an event."""
    try:
        request_by_text(triggers, text)
    except DataError as error:
        details = {"trigger": text.strip()[:80]}
        report(Event(kind="trigger failed", message=str(error), details=details))


def read_lines(triggers: Triggers, lines: TextIO, report: Report) -> threading.Thread:
    """Start a thread that takes each line as a trigger; the end of the lines ends the stream."""

    def read() -> None:
        for line in lines:
            accept(triggers, line, report)
        triggers.finish()

    thread = threading.Thread(target=read, name="edge-ad triggers", daemon=True)
    thread.start()
    return thread
