"""Verdicts and events reach every output, however another one fails, also at the end."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ad_runtime import CapturedFrame, Result
from edge_ad_runtime.events import Event
from edge_ad_runtime.outputs import Delivery, Output, base
from edge_ad_runtime.outputs.json_file import JsonConfig, JsonFile
from edge_ad_runtime.outputs.queued import Background, Worker
from edge_ad_runtime.supervisor import Supervisor

MakeVerdict = Callable[..., tuple[CapturedFrame, Result]]


class Recorder(Output):
    """Notes all it gets, and fails as it is told to."""

    def __init__(
        self, *, error: Exception | None = None, at_close: Exception | None = None
    ) -> None:
        self.error, self.at_close = error, at_close
        self.frames: list[int] = []
        self.events: list[str] = []
        self.closed = False

    def write(self, captured: CapturedFrame, result: Result) -> None:
        if self.error is not None:
            raise self.error
        self.frames.append(captured.number)

    def event(self, event: Event) -> None:
        self.events.append(event.kind)

    def close(self) -> None:
        self.closed = True
        if self.at_close is not None:
            raise self.at_close


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("nobody foresaw this")])
def test_one_that_cannot_be_closed_leaves_no_other_one_open(error: Exception) -> None:
    outputs = [Recorder(), Recorder(at_close=error), Recorder()]
    delivery = Delivery(outputs)
    if isinstance(error, OSError):
        delivery.close()
        assert outputs[0].events == ["output failed"]
    else:
        with pytest.raises(RuntimeError):
            delivery.close()
    assert all(output.closed for output in outputs)


def test_a_failure_is_told_without_the_number_of_the_error(verdict: MakeVerdict) -> None:
    class Lines(Recorder):
        name = "kept/v.jsonl"

    told: list[str] = []

    class Log(Output):
        def write(self, captured: CapturedFrame, result: Result) -> None:
            pass

        def event(self, event: Event) -> None:
            told.append(event.message)

    for path in (None, "kept/v.jsonl", "kept/a.jpg"):
        delivery = Delivery([Log(), Lines(error=OSError(28, "No space left on device", path))])
        delivery.verdict(*verdict())
    failed = "the output kept/v.jsonl failed: No space left on device"
    assert told == [failed, failed, f"{failed}: kept/a.jpg"]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the clock by which outputs settle, in seconds."""
    times = [0.0]
    monkeypatch.setattr(base, "monotonic", lambda: times[0])
    return times


def test_a_failure_is_told_to_all_but_the_one_that_failed(
    verdict: MakeVerdict, now: list[float]
) -> None:
    good, bad = Recorder(), Recorder(error=OSError("full"))
    delivery = Delivery([bad, good])
    for number in range(3):
        delivery.verdict(*verdict(number))
    bad.error = None
    now[0] = base.SETTLED_SECONDS
    delivery.event(Event(kind="drift", message="an event is no proof: this output takes none"))
    assert good.events == ["output failed", "drift"]
    good.events.remove("drift")
    bad.events.remove("drift")
    delivery.verdict(*verdict(3))
    assert good.events == ["output failed", "output back"] and bad.events == []
    assert good.frames == [0, 1, 2, 3] and bad.frames == [3]
    assert delivery.lost == 3


def test_an_output_that_takes_every_other_verdict_is_told_once(
    verdict: MakeVerdict, now: list[float]
) -> None:
    good, slow = Recorder(), Recorder()
    delivery = Delivery([slow, good])
    for number in range(100):
        slow.error = OSError("too slow") if number % 2 else None
        now[0] += base.SETTLED_SECONDS / 2
        delivery.verdict(*verdict(number))
    assert good.events == ["output failed"] and delivery.lost == 50


def test_that_one_reader_has_gone_takes_no_verdict_from_the_others(verdict: MakeVerdict) -> None:
    good, gone = Recorder(), Recorder(error=BrokenPipeError())
    delivery = Delivery([gone, good])
    with pytest.raises(BrokenPipeError):
        delivery.verdict(*verdict(0))
    assert good.frames == [0]


def test_background_hands_on_events_and_closes(verdict: MakeVerdict) -> None:
    recorder = Recorder()
    output = Background(recorder)
    output.write(*verdict(0))
    output.event(Event(kind="alarm on", message=""))
    output.close()
    assert (recorder.frames, recorder.events, recorder.closed) == ([0], ["alarm on"], True)


@pytest.mark.parametrize("wait", [True, False])
def test_an_error_that_nobody_foresaw_hangs_nothing(verdict: MakeVerdict, wait: bool) -> None:
    failed = threading.Event()

    def report(event: Event) -> None:
        if event.kind == "thread failed":
            failed.set()

    recorder = Recorder(error=ZeroDivisionError())
    delivery = Delivery()
    supervisor = Supervisor(report, first_delay=0.05)
    delivery.add(Background(recorder, limit=2, wait=wait, supervisor=supervisor))

    def write() -> None:
        for number in range(20):
            delivery.verdict(*verdict(number))

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(60)
    assert not writing.is_alive()
    assert failed.wait(60)  # the thread may get its first turn after all verdicts were handed in
    recorder.error = None
    delivery.verdict(*verdict(20))
    delivery.close()
    assert recorder.frames[-1] == 20
    assert delivery.lost > 0


def test_an_output_that_works_again_while_its_failure_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([OSError("away"), None])
    error = property(lambda worker: next(answers), lambda worker, value: None)
    monkeypatch.setattr(Worker, "_error", error, raising=False)
    worker: Worker[int] = Worker(lambda item: None, name="files", limit=8)
    with pytest.raises(OSError, match="away"):
        worker.put(1)


def test_what_a_best_effort_output_drops_is_no_lost_verdict(verdict: MakeVerdict) -> None:
    release = threading.Event()

    class Gallery(Recorder):
        best_effort = True

        def write(self, captured: CapturedFrame, result: Result) -> None:
            release.wait(60)

    events = Recorder()
    delivery = Delivery([Background(Gallery(), limit=2), events])
    for number in range(20):
        delivery.verdict(*verdict(number))
    release.set()
    delivery.close()
    assert delivery.lost == 0 and events.events == []


def test_files_of_json_lines_are_closed(tmp_path: Path, verdict: MakeVerdict) -> None:
    output = JsonFile(JsonConfig(path=tmp_path / "a.jsonl"))
    file = output._rotating._file
    delivery = Delivery([output])
    delivery.verdict(*verdict(0))
    delivery.close()
    assert file is not None and file.closed


def test_anything_with_a_write_is_an_output(verdict: MakeVerdict) -> None:
    class Plain:
        def __init__(self) -> None:
            self.frames: list[int] = []

        def write(self, captured: CapturedFrame, result: Result) -> None:
            self.frames.append(captured.number)

    plain, file = Plain(), Recorder()
    delivery = Delivery([plain, file])
    delivery.verdict(*verdict(7))
    delivery.event(Event(kind="alarm on", message=""))
    delivery.close()
    assert plain.frames == [7] and file.events == ["alarm on"]
