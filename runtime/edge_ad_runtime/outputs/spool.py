"""A queue on disk: what waits in it survives a restart, and damage is found."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TypeVar

from edge_ad_runtime.errors import ConfigError, counted
from edge_ad_runtime.files import own_path
from edge_ad_runtime.outputs.spool_file import (
    SELECT,
    checked,
    insert,
    is_damage,
    is_spool,
    open_spool,
    readable,
    sqlite_errors,
)

_DELETE = "DELETE FROM message WHERE number = ?"
_DELETE_OLDEST = """DELETE FROM message WHERE number IN
    (SELECT number FROM message ORDER BY number LIMIT ?)"""

T = TypeVar("T")


class SpoolError(OSError):
    """The file cannot be read or written, perhaps because its disk is full."""


class Spool:
    """Messages on disk, oldest first, at most `limit`; for several threads of one process.

    Each message is handed to the system at once, so neither a crash nor `kill -9` loses it. It is
    not synced to the disk at once (`synchronous=NORMAL`), since a sync for every verdict would wear
    out the flash memory of a device. After a power cut the file is intact, but messages of about
    the last half minute that still waited may be missing, and some that were sent in it come again.

    Each message has a checksum. A file that is damaged is set aside, beside the new one, which
    takes over the messages that can still be read. Where SQLite's write-ahead log is damaged, what
    lies behind the damage is lost, and a notice says so.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        """Open or create the file.

        Raises:
            ConfigError: it cannot be opened, is something else, or another stream uses it.
        """
        self._limit = limit
        self._filled = threading.Condition()
        self._notices: list[str] = []
        try:
            self._path = path = own_path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            # What is produced is nobody else's business; SQLite gives its log the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            try:
                self._base = open_spool(path, self._notices)
                self._count = _count(self._base)
            except sqlite3.DatabaseError as error:
                if not is_damage(error) or not is_spool(path, error):
                    raise
                self._begin_anew()
            if excess := self._drop_excess():
                self._notices.append(
                    f"dropped {counted(excess, 'message')}, the oldest, of its spool {path}, which "
                    f"held more than spool_limit = {limit}"
                )
        except (sqlite3.Error, OSError) as error:
            if "locked" in str(error):
                raise ConfigError(
                    f"the spool {path} is in use by another stream: give each stream its own, "
                    "spool = ..."
                ) from error
            raise ConfigError(
                f"cannot use the spool {path} ({error}): choose another file"
            ) from error

    def __len__(self) -> int:
        """Return how many messages wait."""
        return self._count

    def put(self, topic: str, payload: str) -> None:
        """Append a message.

        Raises:
            OSError: the disk is full; or the spool was, and lost its oldest message.
        """
        with self._filled:
            self._do(lambda base: insert(base, topic, payload))
            self._count += 1
            full = self._drop_excess() > 0
            self._filled.notify_all()
        if full:
            raise OSError(f"the spool holds {self._limit} messages and dropped its oldest one")

    def head(self, timeout: float) -> tuple[int, str, str] | None:
        """Wait for the oldest message: its number, topic and payload; None: none in time.

        Raises:
            OSError: the file cannot be read.
        """
        with self._filled:
            if not self._count:
                self._filled.wait(timeout)
            while row := self._do(lambda base: base.execute(SELECT + " LIMIT 1").fetchone()):
                message = checked(row)
                if message is not None:
                    return row[0], *message
                self._notices.append(f"lost a message, which was damaged in the spool {self._path}")
                if self._delete(row[0]) != 1:
                    self._base.close()
                    self._begin_anew()  # the table is damaged: this row would come for ever
        return None

    def remove(self, number: int) -> None:
        """Delete a message that has arrived.

        Raises:
            OSError: the file cannot be written.
        """
        with self._filled:
            # A full spool may have dropped it meanwhile.
            self._delete(number)

    def take_notices(self) -> list[str]:
        """Return what there is to tell about damage, once."""
        with self._filled:  # another thread may be setting a damaged file aside
            notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        """Close the file; what waits is there at the next start."""
        with self._filled:
            self._base.close()

    def _delete(self, number: int) -> int:
        deleted = self._do(lambda base: base.execute(_DELETE, (number,)).rowcount)
        self._count -= deleted
        return deleted

    def _drop_excess(self) -> int:
        """Delete the oldest messages beyond the limit; return how many there were."""
        excess = max(0, self._count - self._limit)
        if excess:
            self._count -= self._do(lambda base: base.execute(_DELETE_OLDEST, (excess,)).rowcount)
        return excess

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Use the file; a damaged one is replaced, and the action repeated.

        Raises:
            OSError: the file cannot be used.
        """
        try:
            try:
                with sqlite_errors():
                    return action(self._base)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._base.close()
                self._begin_anew()
                return action(self._base)
        except sqlite3.Error as error:
            raise SpoolError(f"cannot use the spool {self._path}: {error}") from error

    def _begin_anew(self) -> None:
        """Set the file aside, and save what can be read of it.

        Raises:
            OSError: there is no room for a new file.
        """
        moment = datetime.now(timezone.utc)
        aside = self._path.with_name(f"{self._path.name}.damaged-{moment:%Y%m%dT%H%M%S%f}")
        for ending in ("-shm", "-wal", ""):
            with suppress(FileNotFoundError):
                os.replace(f"{self._path}{ending}", f"{aside}{ending}")
        saved = 0
        try:
            self._base = open_spool(self._path, self._notices)
            self._base.execute("BEGIN")
            for topic, payload in islice(readable(aside), self._limit):
                insert(self._base, topic, payload)
                saved += 1
            self._base.execute("COMMIT")
            self._count = _count(self._base)
        except sqlite3.Error as error:
            raise SpoolError(f"cannot begin a new spool {self._path}: {error}") from error
        self._notices.append(
            f"has a damaged spool, which is now {aside}: {counted(saved, 'message')} could be "
            "saved, others may be lost"
        )


def _count(base: sqlite3.Connection) -> int:
    return int(base.execute("SELECT COUNT(*) FROM message").fetchone()[0])
