"""Long work as processes of their own: queued, watched, stopped, and found again after a restart.

The work is a command line of `edge-ad`, so that a crash of it harms nobody, and it goes on when the
program that started it ends. Each piece of it is a `Job`: a folder with plain files.
"""

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from edge_ad.project.job import HERE, LOG_FILE, RESULT_FILE, Job
from edge_ad_runtime.errors import DataError

_KILL_SECONDS = 5.0


class Queue:
    """The jobs in a folder; one of them runs at a time, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        """Take over what an earlier program left there; nothing starts before `advance`."""
        self._folder = folder
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[bytes]] = []
        self._known: dict[str, Job | None] = {}
        self._known_lock = threading.Lock()
        self._listed_at: int | None = None

    def jobs(self, category: str | None = None, kind: str | None = None) -> list[Job]:
        """Return the jobs, the newest first; those that cannot be read are passed over.

        What is over never changes, so only the others are read again: pages ask several times a
        second, and there may be hundreds of jobs.
        """
        with self._known_lock:
            self._look()
            found = [job for job in self._known.values() if job is not None]
        return [
            job for job in found if category in (None, job.category) and kind in (None, job.kind)
        ]

    def _look(self) -> None:
        """Bring what is known of the folder up to date."""
        try:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at != self._listed_at:
                with os.scandir(self._folder) as entries:
                    names = sorted((entry.name for entry in entries), reverse=True)
                self._known = {name: self._known.get(name) for name in names}
                self._listed_at = changed_at
        except OSError:
            self._known, self._listed_at = {}, None
        for name, job in self._known.items():
            if job is None or not job.is_over:
                self._known[name] = None
                with suppress(DataError):
                    self._known[name] = Job.read(self._folder / name)

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
            kind: `look`, `train` or `export`.
            category: which product it is about.
            title: for people.
            arguments: of `edge-ad`, with `HERE` for the job's folder.
            about: what belongs to it for its caller.

        Raises:
            DataError: it cannot be written to disk.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        folder = self._folder / f"{stamp}-{int(now % 1 * 1000):03}-{kind}-{secrets.token_hex(2)}"
        job = Job(
            folder=folder,
            kind=kind,
            category=category,
            title=title,
            arguments=tuple(arguments),
            about=about,
            created_at=now,
        )
        try:
            folder.mkdir(parents=True)
            job.write()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _cannot_write(folder, error) from error
        with self._known_lock:
            self._listed_at = None  # two changes within one tick of the clock look like one
        self.advance()
        return self.job(job.id)

    def advance(self) -> None:
        """See which jobs have ended, and start the next one when none runs.

        Raises:
            DataError: how a job stands cannot be written to disk; the next call tries again.
        """
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            waiting, running = [], False
            for job in self.jobs():
                if job.state == "running":
                    if _process(job) is None:
                        _put(_ended(job))
                    else:
                        running = True
                elif job.state == "queued":
                    waiting.append(job)
            if waiting and not running:
                self._start(waiting[-1])

    def stop(self, identity: str) -> None:
        """End a job, or take it out of the queue; one that is over stays as it is.

        Raises:
            DataError: there is none of this id, or its end cannot be written to disk.
        """
        with self._lock:
            job = self.job(identity)
            process = _process(job)
            if not job.is_over:
                _put(replace(job, state="stopped", ended_at=time.time()))
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
        finally:
            with self._known_lock:
                self._known.pop(identity, None)
                self._listed_at = None

    def _start(self, job: Job) -> None:
        arguments = [text.replace(HERE, str(job.folder)) for text in job.arguments]
        command = [sys.executable, "-m", "edge_ad", *arguments]
        try:
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
        except OSError as error:
            raise _cannot_write(job.folder, error) from error
        now = time.time()
        try:
            born_at = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess:
            born_at = now
        try:
            _put(replace(job, state="running", started_at=now, pid=child.pid, born_at=born_at))
        except DataError:
            child.kill()  # it still counts as queued, and would be started once more
            raise
        finally:
            self._children.append(child)


def _put(job: Job) -> None:
    try:
        job.write()
    except OSError as error:
        raise _cannot_write(job.folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write into {folder}: {error.strerror or error}: check the permissions and the "
        "space on the disk"
    )


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
