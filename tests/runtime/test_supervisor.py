"""Threads that fail: told, started again with growing delays, or handed to their owner."""

import itertools
import threading
import time

import pytest

from edge_ad_runtime import CameraError
from edge_ad_runtime.events import Event
from edge_ad_runtime.supervisor import Supervisor


def test_a_thread_that_fails_is_an_event_and_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[Event] = []
    runs: list[float] = []

    def work() -> None:
        runs.append(time.monotonic())
        if len(runs) < 4:
            raise ZeroDivisionError("http://user:secret@host")

    supervisor = Supervisor(events.append, first_delay=0.02)
    supervisor.start("webhook", work).join(60)
    assert len(runs) == 4
    gaps = [later - sooner for sooner, later in itertools.pairwise(runs)]
    assert gaps[0] >= 0.02 and gaps[1] >= 0.04 and gaps[2] >= 0.08
    assert [event.kind for event in events] == ["thread failed"] * 3
    assert "webhook" in events[0].message and "ZeroDivisionError" in events[0].message
    assert "secret" not in events[0].message
    assert "Traceback" in caplog.text


def test_an_owner_that_is_told_replaces_the_restart() -> None:
    events: list[Event] = []
    told: list[Exception] = []
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        raise CameraError("the driver is gone")

    Supervisor(events.append).start("reader", work, died=told.append).join(60)
    assert len(runs) == 1 and isinstance(told[0], CameraError)
    assert "the driver is gone" in events[0].message


def test_nothing_is_started_again_after_the_end() -> None:
    failed = threading.Event()
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        failed.set()
        raise ValueError

    supervisor = Supervisor(first_delay=60)
    thread = supervisor.start("pictures", work)
    assert failed.wait(60)
    supervisor.close()
    thread.join(60)
    assert not thread.is_alive() and len(runs) == 1


def test_a_report_that_fails_does_not_end_the_thread() -> None:
    runs: list[int] = []

    def report(event: Event) -> None:
        raise OSError("no output left")

    def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError

    Supervisor(report, first_delay=0.01).start("spool", work).join(60)
    assert len(runs) == 3
