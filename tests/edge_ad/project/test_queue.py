"""Jobs: queued, watched, stopped, and found again by another program."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_ad.progress import Bar, Progress, progress_to
from edge_ad.project.job import HERE, Job
from edge_ad.project.queue import Queue
from edge_ad_runtime.errors import DataError


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    """A queue whose command line is a small program instead of `edge-ad`."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, pathlib, json, time\n"
        "what, job = sys.argv[1:3]\n"
        "if what == 'wait':\n"
        "    while not pathlib.Path(job, 'go').exists(): time.sleep(0.02)\n"
        "if what == 'fail': sys.exit('Error: expected more pictures, got 2')\n"
        "print(json.dumps({'done': True}))\n"
    )
    start, children = subprocess.Popen, []

    def small(command: list[str], **options: Any) -> Any:
        children.append(start([sys.executable, str(program), *command[3:]], **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", small)
    yield Queue(tmp_path / "jobs")
    for child in children:
        child.kill()
        child.wait()


def reach(queue: Queue, job: Job, state: str) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        queue.advance()
        now = queue.job(job.id)
        if now.state == state:
            return now
        time.sleep(0.02)
    raise AssertionError(f"{now.state} instead of {state}: {now.log()}")


def test_one_after_the_other(queue: Queue) -> None:
    first = queue.submit("train", "plate", "first", ["wait", HERE], method="padim")
    second = queue.submit("train", "plate", "second", ["print", HERE])
    assert (first.state, second.state) == ("running", "queued")
    (first.folder / "go").touch()
    done = reach(queue, first, "done")
    assert done.result() == {"done": True}
    assert done.about == {"method": "padim"} and done.ended_at >= done.started_at
    reach(queue, second, "done")
    assert [job.title for job in queue.jobs("plate", "train")] == ["second", "first"]
    assert queue.jobs("other") == []


def test_a_failure_is_told_in_its_own_words(queue: Queue) -> None:
    job = reach(queue, queue.submit("train", "plate", "t", ["fail", HERE]), "failed")
    assert job.message == "expected more pictures, got 2"
    again = queue.again(job.id)
    assert (again.arguments, again.id != job.id) == (job.arguments, True)
    reach(queue, again, "failed")
    queue.remove(job.id)
    with pytest.raises(DataError, match="cannot be read"):
        queue.job(job.id)


def test_another_program_finds_a_running_job(queue: Queue, tmp_path: Path) -> None:
    job = queue.submit("train", "plate", "t", ["wait", HERE])
    restarted = Queue(tmp_path / "jobs")
    restarted.advance()
    assert restarted.job(job.id).state == "running"
    (job.folder / "go").touch()
    assert reach(restarted, job, "done").result() == {"done": True}


def test_a_killed_job_says_so_and_nothing_is_lost(queue: Queue) -> None:
    job = queue.submit("train", "plate", "t", ["wait", HERE])
    os.kill(job.pid, signal.SIGKILL)
    assert "was interrupted before it could finish" in reach(queue, job, "failed").message


def test_stop_ends_the_process_and_the_next_one_starts(queue: Queue) -> None:
    job = queue.submit("train", "plate", "t", ["wait", HERE])
    waiting = queue.submit("train", "plate", "u", ["wait", HERE])
    last = queue.submit("train", "plate", "v", ["print", HERE])
    with pytest.raises(DataError, match="is still running"):
        queue.remove(waiting.id)
    queue.stop(waiting.id)
    queue.stop(job.id)
    assert [queue.job(one.id).state for one in (job, waiting)] == ["stopped", "stopped"]
    reach(queue, last, "done")


def test_ids_lead_nowhere_else(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    for identity in ("", "..", "../x", "a/b"):
        with pytest.raises(DataError):
            queue.job(identity)


def test_progress_is_told_step_by_step() -> None:
    told: list[Progress] = []
    with progress_to(told.append), Bar(2, "padim fit") as bar:
        bar.update()
        bar.update()
    with Bar(3, "nobody listens") as bar:
        bar.update()
    assert [(one.stage, one.done, one.total) for one in told] == [
        ("padim fit", 0, 2),
        ("padim fit", 1, 2),
        ("padim fit", 2, 2),
    ]


def test_time_left_follows_from_what_was_expected(tmp_path: Path) -> None:
    job = Job(
        folder=tmp_path,
        kind="train",
        category="plate",
        title="t",
        arguments=(),
        about={"expected_seconds": 30.0},
        state="running",
        created_at=100.0,
        started_at=110.0,
    )
    assert job.seconds_left(120.0) == 20.0
    assert job.seconds_left(150.0) is None
    (tmp_path / "progress.json").write_text(json.dumps({"stage": "fit", "done": 1, "total": 4}))
    assert job.progress() == Progress(stage="fit", done=1, total=4)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": -5},
        {"pid": "x"},
        {"born_at": "x"},
        {"created_at": float("nan")},
        {"arguments": [5]},
        {"arguments": ["\0"]},
        {"about": None},
        {"state": "lost"},
        {"title": 5},
        None,
    ],
)
def test_a_damaged_job_stops_no_other(queue: Queue, change: dict[str, Any] | None) -> None:
    damaged = queue.submit("train", "plate", "damaged", ["print", HERE])
    reach(queue, damaged, "done")
    path = damaged.folder / "job.json"
    values = json.loads(path.read_text()) | {"state": "running"} | (change or {})
    path.write_text("[" * 50_000 if change is None else json.dumps(values))
    (damaged.folder / "result.json").write_text("[" * 50_000)
    (damaged.folder / "progress.json").write_text("[" * 50_000)
    assert (damaged.result(), damaged.progress()) == (None, None)
    with pytest.raises(DataError, match="cannot be read"):
        queue.job(damaged.id)
    other = queue.submit("train", "plate", "other", ["print", HERE])
    assert reach(queue, other, "done") and [job.title for job in queue.jobs()] == ["other"]


def test_what_is_over_is_not_read_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages ask for all jobs several times a second."""
    old = [queue.submit("train", "plate", str(number), ["print", HERE]) for number in range(3)]
    for job in old:
        reach(queue, job, "done")
    running = queue.submit("train", "plate", "running", ["wait", HERE])
    read, names = Job.read, list[str]()

    def noted(folder: Path) -> Job:
        names.append(folder.name)
        return read(folder)

    monkeypatch.setattr(Job, "read", noted)
    for _ in range(3):
        assert [job.state for job in queue.jobs()] == ["running", "done", "done", "done"]
    assert names == [running.id] * 3
    # What another program makes and deletes is seen all the same.
    other = Queue(running.folder.parent)
    added = other.submit("export", "plate", "added", ["print", HERE])
    other.remove(old[0].id)
    found = [job.id for job in queue.jobs()]
    assert added.id in found and old[0].id not in found


def test_a_folder_that_takes_no_files(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: one sentence, no half job, and what waits starts when there is room again."""
    first = queue.submit("train", "plate", "first", ["wait", HERE])
    waiting = queue.submit("train", "plate", "second", ["print", HERE])
    write = Job.write

    def full(job: Job) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Job, "write", full)
    for work in (lambda: queue.submit("train", "plate", "third", []), lambda: queue.stop(first.id)):
        with pytest.raises(DataError, match="No space left on device: check the permissions"):
            work()
    (first.folder / "go").touch()
    assert [job.title for job in queue.jobs()] == ["second", "first"]
    monkeypatch.setattr(Job, "write", write)
    reach(queue, first, "done")
    reach(queue, waiting, "done")
