"""Triggers: none is forgotten, and no text, however odd, ends the thread that reads it."""

import io
import json
from collections.abc import Callable

import pytest

from edge_ad_runtime import ConfigError
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs.base import event_fields
from edge_ad_runtime.stream.triggers import Triggers, accept, accept_lines, request_by_text


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def triggers(events: list[Event]) -> Triggers:
    return Triggers(["left", "right"], events.append, timeout=5.0)


def failed(events: list[Event]) -> list[object]:
    assert {event.kind for event in events} <= {"trigger failed"}
    return [event.details["trigger"] for event in events]


ODD = [
    b'{"id": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b"\xff\xfe\x00part",
    b'{"id": "\\ud800"}',
    b'{"id": "a\\u0000b"}',
    b'{"id": 1' + b"0" * 4000 + b"}",
    b'{"id": NaN}',
    b'{"id": null}',
    b'{"id": "a", "camera": ["left"]}',
    b'{"camera": "\\udfff"}',
    b"part nowhere",
    b"{",
    b"x" * 5000,
    b"x" * 300,
    b"\x1b[2J",
]


@pytest.mark.parametrize("text", ODD, ids=[str(number) for number in range(len(ODD))])
def test_an_odd_text_is_one_event_that_every_output_can_write(
    triggers: Triggers, events: list[Event], text: bytes
) -> None:
    accept(triggers, text, events.append)
    assert len(failed(events)) == 1
    for part in (json.dumps(event_fields(events[0])), events[0].message):
        part.encode()
    assert triggers.peek("left") is None


def test_lines_go_on_behind_odd_ones(triggers: Triggers, events: list[Event]) -> None:
    text = b"one left\n\xff\n" + b"y" * 100_000 + b"\n{\ntwo left\n\nlast left"
    accept_lines(triggers, io.BytesIO(text), events.append)
    served = []
    while (request := triggers.peek("left")) is not None:
        served.append(request.identity)
        triggers.take("left")
        triggers.served("left")
    assert [served[0], served[1], served[3]] == ["one", "two", "last"] and len(served) == 4
    assert len(failed(events)) == 3
    assert not triggers.exhausted, "the empty line asked the other camera, too"
    triggers.close("right", "the stream ended")
    assert triggers.exhausted


def test_peeking_changes_nothing(events: list[Event]) -> None:
    now = [0.0]
    triggers = Triggers(["left"], events.append, timeout=1.0, clock=lambda: now[0])
    triggers.request("late")
    triggers.request("later")
    now[0] = 2.0
    for _ in range(3):
        request = triggers.peek("left")
        assert request is not None and request.identity == "late"
    assert events == []
    triggers.expire("left")
    assert failed(events) == ["late", "later"]
    assert triggers.peek("left") is None


def test_one_whose_frame_is_taken_is_not_forgotten_when_the_loop_breaks_off(
    triggers: Triggers, events: list[Event]
) -> None:
    triggers.request("taken", "left")
    triggers.request("waiting", "left")
    triggers.take("left")
    triggers.close("left", "the loop broke off")
    assert failed(events) == ["taken", "waiting"]
    triggers.close("left", "again")
    assert len(events) == 2


def test_none_is_taken_on_behind_the_end(triggers: Triggers, events: list[Event]) -> None:
    triggers.close("left", "the camera is gone")
    with pytest.raises(ConfigError, match="the camera is gone"):
        triggers.request("a", "left")
    triggers.request("b")
    assert triggers.peek("left") is None and triggers.peek("right") is not None
    triggers.close("right", "the stream ended")
    with pytest.raises(ConfigError, match="the stream ended"):
        triggers.request("c")
    assert failed(events) == ["b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("part-7 left", "part-7"),
        ("  part 7", None),
        ('{"id": "Nr. 7", "camera": "right"}', "Nr. 7"),
        ('{"id": "Größe 7"}', "Größe 7"),
    ],
)
def test_texts(triggers: Triggers, text: str, expected: str | None) -> None:
    ask: Callable[[], str] = lambda: request_by_text(triggers, text)  # noqa: E731
    if expected is None:
        with pytest.raises(ConfigError, match="expected one of left, right"):
            ask()
    else:
        assert ask() == expected
