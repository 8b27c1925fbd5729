"""One piece of long work on disk: a folder with plain files, written by one and read by many.

`job.json` says what was asked for and how it went, `progress.json` how far it is, `result.json`
what the command printed, and `log.txt` what it said on stderr.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

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

_LATEST = 1e11
"""A time, in seconds since 1970, that no clock shows."""

_LOG_TAIL = 4000


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work.

    Attributes:
        folder: of the job; its name is the job's id, and ids sort by time.
        kind: `look`, `train` or `export`.
        category: which product it is about.
        title: for people.
        arguments: of `edge-ad`; `HERE` in them stands for the folder.
        about: what belongs to it for its caller, such as the preset.
        state: how it stands.
        created_at: seconds since 1970, as all times here.
        started_at: 0: not yet.
        ended_at: 0: not yet.
        pid: of the process; 0: none yet.
        born_at: when the process began: a later process may have the same number.
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
            raise ValueError("'pid' is not a process number")
        if not isinstance(self.about, dict) or self.state not in get_args(State):
            raise ValueError("'about' or 'state' is something else")
