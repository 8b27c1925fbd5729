"""A queue on disk: what waits in it survives a restart, and damage is found."""

import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from edge_ad_runtime.errors import ConfigError, counted
from edge_ad_runtime.files import own_path

_LOCK_SECONDS = 0.5
_MAGIC = b"SQLite format 3\0"
_APPLICATION = int.from_bytes(b"EdAd", "big")
"""SQLite's `application_id`: a file whose tables are damaged is still known as a spool by it."""

T = TypeVar("T")


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
                self._base = _open(path, self._notices)
                self._count = _count(self._base)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error) or not _is_spool(path, error):
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
            self._do(lambda base: _insert(base, topic, payload))
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
            while row := self._do(lambda base: base.execute(_SELECT + " LIMIT 1").fetchone()):
                message = _checked(row)
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
                with _sqlite_errors():
                    return action(self._base)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._base.close()
                self._begin_anew()
                return action(self._base)
        except sqlite3.Error as error:
            raise OSError(f"cannot use the spool {self._path}: {error}") from error

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
            self._base = _open(self._path, self._notices)
            for topic, payload in _readable(aside, self._limit):
                _insert(self._base, topic, payload)
                saved += 1
            self._count = _count(self._base)
        except sqlite3.Error as error:
            raise OSError(f"cannot begin a new spool {self._path}: {error}") from error
        self._notices.append(
            f"has a damaged spool, which is now {aside}: {counted(saved, 'message')} could be "
            "saved, others may be lost"
        )


_CREATE = """CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload TEXT, checksum INTEGER)"""
_COLUMNS = [(b"number", b"INTEGER"), (b"topic", b"TEXT"), (b"payload", b"TEXT")]
_CHECKSUM = (b"checksum", b"INTEGER")
_SELECT = "SELECT number, topic, payload, checksum FROM message ORDER BY number"
_DELETE = "DELETE FROM message WHERE number = ?"
_DELETE_OLDEST = """DELETE FROM message WHERE number IN
    (SELECT number FROM message ORDER BY number LIMIT ?)"""


class _OtherTables(sqlite3.DatabaseError):
    """A whole database, but no spool's: another program's, or one whose tables are damaged."""


def _open(path: Path, notices: list[str]) -> sqlite3.Connection:
    """Open a spool for this process alone, and see that it is whole.

    Raises:
        sqlite3.Error: it is damaged, in use, of another program, or cannot be written.
    """
    log = Path(f"{path}-wal")
    logged = _logged_frames(log)
    base = sqlite3.connect(
        path, timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level=None
    )
    try:
        with _sqlite_errors():
            base.text_factory = bytes
            base.execute("PRAGMA locking_mode=EXCLUSIVE")
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")
            _, recovered, _ = base.execute("PRAGMA wal_checkpoint").fetchone()
            base.execute("BEGIN IMMEDIATE")
            _prepare(base)
            base.execute("COMMIT")
            if base.execute("PRAGMA quick_check(1)").fetchall() != [(b"ok",)]:
                raise sqlite3.DatabaseError("it is damaged")
    except sqlite3.Error:
        base.close()
        raise
    if recovered < logged:
        notices.append(
            f"has a damaged log of its spool, {log}: the last messages that waited may be lost, "
            "and others may come twice"
        )
    return base


def _prepare(base: sqlite3.Connection) -> None:
    """Make the table in a new file, and see that another one holds nothing else.

    Raises:
        sqlite3.Error: it holds something else, or cannot be read.
    """
    tables = base.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall()
    if not tables:
        base.execute(_CREATE)
        base.execute(f"PRAGMA application_id={_APPLICATION}")
        return
    columns = [(row[1], row[2]) for row in base.execute("PRAGMA table_info(message)")]
    if columns == _COLUMNS:  # of an earlier version
        base.execute("ALTER TABLE message ADD COLUMN checksum INTEGER")
        columns.append(_CHECKSUM)
    if tables != [(b"table", b"message"), (b"table", b"sqlite_sequence")] or columns != [
        *_COLUMNS,
        _CHECKSUM,
    ]:
        raise _OtherTables("it holds something else than messages")
    base.execute(_SELECT + " LIMIT 1")


def _logged_frames(log: Path) -> int:
    """Return how many frames a write-ahead log should hold up to its last commit.

    Those of the present round have the salt of the log's header; older ones lie behind them. A log
    in whose header nothing can be read should still hold one. https://sqlite.org/fileformat2.html
    """
    try:
        with log.open("rb") as file:
            header = file.read(32)
            page = int.from_bytes(header[8:12], "big")
            if not 512 <= page <= 65_536:
                return min(len(header) // 32, 1)
            last = 0
            for number in count(1):
                frame = file.read(24)
                if len(frame) < 24 or len(file.read(page)) < page:
                    return last or min(number - 1, 1)
                if frame[8:16] == header[16:24] and any(frame[4:8]):
                    last = number
    except OSError:
        pass
    return 0


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    """Raise `sqlite3.DatabaseError` where a damaged text makes Python raise something else."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"a damaged text ({error.reason})") from error


def _insert(base: sqlite3.Connection, topic: str, payload: str) -> None:
    row = (topic, payload, _checksum(topic.encode(), payload.encode()))
    base.execute("INSERT INTO message (topic, payload, checksum) VALUES (?, ?, ?)", row)


def _count(base: sqlite3.Connection) -> int:
    return int(base.execute("SELECT COUNT(*) FROM message").fetchone()[0])


def _checksum(topic: bytes, payload: bytes) -> int:
    return zlib.crc32(topic + b"\0" + payload)


def _checked(row: tuple[Any, ...]) -> tuple[str, str] | None:
    """Return topic and payload; None: they are damaged. Older versions wrote no checksum."""
    _, topic, payload, checksum = row
    if not isinstance(topic, bytes) or not isinstance(payload, bytes):
        return None
    if checksum is not None and checksum != _checksum(topic, payload):
        return None
    try:
        return topic.decode(), payload.decode()
    except UnicodeDecodeError:
        return None


def _readable(path: Path, limit: int) -> Iterator[tuple[str, str]]:
    """Yield the messages of a damaged file, up to the place where SQLite gives up."""
    with suppress(sqlite3.Error), _sqlite_errors(), closing(sqlite3.connect(path)) as base:
        base.text_factory = bytes
        for row in base.execute(f"{_SELECT} LIMIT {limit}"):
            message = _checked(row)
            if message is not None and row[3] is not None:
                yield message


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell damage from a full disk, a failing one, and a file that is in use or not available."""
    return not re.search("locked|full|I/O|unable to open|closed", str(error))


def _is_spool(path: Path, error: sqlite3.DatabaseError) -> bool:
    """Whether what cannot be used as a spool was one, and not another program's file.

    By its name, its `application_id`, zeros as after a power cut, or as a damaged database.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(100).ljust(100, b"\0")
    if path.suffix == ".spool" or not any(start):
        return True
    if int.from_bytes(start[68:72], "big") == _APPLICATION:
        return True
    same = sum(found == expected for found, expected in zip(start, _MAGIC, strict=False))
    return same >= len(_MAGIC) // 2 and not isinstance(error, _OtherTables)
