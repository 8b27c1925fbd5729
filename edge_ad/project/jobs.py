"""Long work as processes of their own: queued, watched, stopped, and found again after a restart.

Each job is a folder with plain files: `job.json` (what was asked for and how it went),
`progress.json` (how far it is), `result.json` (what the command printed) and `log.txt` (what it
said on stderr). The work is a command line of `edge-ad`, so that a crash of it harms nobody, and
it goes on when the program that started it ends.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from edge_ad.progress import Progress
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import write_whole

State = Literal["queued", "running", "done", "failed", "stopped"]

JOB_FILE = "job.json"
PROGRESS_FILE = "progress.json"
RESULT_FILE = "result.json"
LOG_FILE = "log.txt"

HERE = "{job}"
"""Stands in a job's arguments for the job's own folder."""

_KILL_SECONDS = 5.0
_LATEST = 1e11
"""A time, in seconds since 1970, that no clock shows."""

_LOG_TAIL = 4000


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work.

    Attributes:
        folder: of the job; its name is the job's id, and ids sort by time.
        kind: `train`, `export` or `limit`.
        category: which product it is about.
        title: for people.
        arguments: of `edge-ad`; `HERE` in them stands for the folder.
        about: what belongs to it for its caller, such as the preset.
        state: how it stands.
        created_at: seconds since 1970, as all times here.
        started_at: 0: not yet.
        ended_at: 0: not yet.
        pid: of the process; 0: none yet.
        born_at: when the process began, by which it is told from a later one of the same number.
        message: why it failed; empty: it did not.
    """

    folder: Path
    kind: str
    category: str
    title: str
    arguments: tuple[str, ...]
    about: dict[str, Any]
    state: State = "queued"
    created_at: float
    started_at: float = 0.0
    ended_at: float = 0.0
    pid: int = 0
    born_at: float = 0.0
    message: str = ""

    @property
    def id(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "stopped")

    def progress(self) -> Progress | None:
        """Return how far it is; None: it has not said yet."""
        try:
            found = Progress(**json.loads((self.folder / PROGRESS_FILE).read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        numbers = isinstance(found.done, int) and isinstance(found.total, int)
        return found if numbers and isinstance(found.stage, str) else None

    def seconds_left(self, now: float) -> float | None:
        """Return about how long it will take from now on; None: not known, or longer than expected.

        From what was expected of it, `expected_seconds` in `about`.
        """
        expected = self.about.get("expected_seconds")
        if self.state != "running" or not isinstance(expected, int | float):
            return None
        left = self.started_at + expected - now
        return left if left > 0 else None

    def result(self) -> Any:
        """Return what the command printed, as JSON; None: nothing, or not all of it."""
        try:
            return json.loads((self.folder / RESULT_FILE).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def log(self) -> str:
        """Return the end of what the command said on stderr."""
        try:
            with (self.folder / LOG_FILE).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def write(self) -> None:
        """Put `job.json` in place."""
        values = asdict(self)
        del values["folder"]
        write_whole(self.folder / JOB_FILE, json.dumps(values, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read what `write` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            values = json.loads((folder / JOB_FILE).read_bytes())
            job = cls(folder=folder, **values | {"arguments": tuple(values["arguments"])})
            job._check_types()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"the job in {folder} cannot be read ({error}): remove it") from error
        return job

    def _check_types(self) -> None:
        texts = (self.kind, self.category, self.title, self.message, *self.arguments)
        times = (self.created_at, self.started_at, self.ended_at, self.born_at)
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise ValueError("a text is something else")
        if not all(isinstance(at, int | float) and 0 <= at < _LATEST for at in times):
            raise ValueError("a time is something else")
        if not (isinstance(self.pid, int) and 0 <= self.pid < 2**31):
            raise ValueError("'pid' is no process number")
        if not isinstance(self.about, dict) or self.state not in get_args(State):
            raise ValueError("'about' or 'state' is something else")


class Queue:
    """The jobs in a folder; one of them runs at a time, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        """Take over what an earlier program left there; nothing starts before `advance`."""
        self._folder = folder
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[bytes]] = []

    def jobs(self, category: str | None = None, kind: str | None = None) -> list[Job]:
        """Return the jobs, the newest first; those that cannot be read are passed over."""
        found = []
        for path in sorted(self._folder.glob(f"*/{JOB_FILE}"), reverse=True):
            with suppress(DataError):
                job = Job.read(path.parent)
                if category in (None, job.category) and kind in (None, job.kind):
                    found.append(job)
        return found

    def job(self, identity: str) -> Job:
        """Return one job.

        Raises:
            DataError: there is none of this id.
        """
        if Path(identity).name != identity or not identity:
            raise DataError(f"expected the id of a job, got {identity[:60]!r}")
        return Job.read(self._folder / identity)

    def submit(
        self, kind: str, category: str, title: str, arguments: Sequence[str], **about: Any
    ) -> Job:
        """Put work at the end of the queue.

        Args:
            kind: `train`, `export` or `limit`.
            category: which product it is about.
            title: for people.
            arguments: of `edge-ad`, with `HERE` for the job's folder.
            about: what belongs to it for its caller.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        folder = self._folder / f"{stamp}-{int(now % 1 * 1000):03}-{kind}-{secrets.token_hex(2)}"
        folder.mkdir(parents=True)
        job = Job(
            folder=folder,
            kind=kind,
            category=category,
            title=title,
            arguments=tuple(arguments),
            about=about,
            created_at=now,
        )
        job.write()
        self.advance()
        return self.job(job.id)

    def advance(self) -> None:
        """See which jobs have ended, and start the next one when none runs."""
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            waiting, running = [], False
            for job in self.jobs():
                if job.state == "running":
                    if _process(job) is None:
                        _ended(job).write()
                    else:
                        running = True
                elif job.state == "queued":
                    waiting.append(job)
            if waiting and not running:
                self._start(waiting[-1])

    def stop(self, identity: str) -> None:
        """End a job, or take it out of the queue; one that is over stays as it is."""
        with self._lock:
            job = self.job(identity)
            process = _process(job)
            if not job.is_over:
                replace(job, state="stopped", ended_at=time.time()).write()
        if process is not None:
            _kill(process)
        self.advance()

    def again(self, identity: str) -> Job:
        """Submit the same work once more."""
        job = self.job(identity)
        return self.submit(job.kind, job.category, job.title, job.arguments, **job.about)

    def remove(self, identity: str) -> None:
        """Delete a job that is over, with everything that it made.

        Raises:
            DataError: it is not over, or cannot be deleted.
        """
        job = self.job(identity)
        if not job.is_over:
            raise DataError(f"{job.title} is still running: stop it first")
        try:
            shutil.rmtree(job.folder)
        except OSError as error:
            raise DataError(f"cannot delete {job.folder}: {error.strerror}") from error

    def _start(self, job: Job) -> None:
        arguments = [text.replace(HERE, str(job.folder)) for text in job.arguments]
        command = [sys.executable, "-m", "edge_ad", *arguments]
        with (
            (job.folder / RESULT_FILE).open("wb") as result,
            (job.folder / LOG_FILE).open("wb") as log,
        ):
            # A session of its own: Ctrl-C in the terminal ends the server, not the training.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)
        now = time.time()
        try:
            born_at = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess:
            born_at = now
        replace(job, state="running", started_at=now, pid=child.pid, born_at=born_at).write()


def _process(job: Job) -> psutil.Process | None:
    """Return the process of a job that runs; None: it has ended."""
    if job.state != "running":
        return None
    try:
        process = psutil.Process(job.pid)
        same = abs(process.create_time() - job.born_at) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:  # it has gone, or its number is that of somebody else's process now
        return None


def _ended(job: Job) -> Job:
    """Return the job with its end: a result was printed, a reason was given, or neither."""
    now = time.time()
    if job.result() is not None:
        return replace(job, state="done", ended_at=now)
    reasons = [line for line in job.log().splitlines() if line.startswith("Error: ")]
    message = (
        reasons[-1].removeprefix("Error: ")
        if reasons
        else "it was interrupted before it could finish, and nothing was changed: start it again"
    )
    return replace(job, state="failed", ended_at=now, message=message)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(_KILL_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
