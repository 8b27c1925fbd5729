"""The file of a spool, a SQLite database: how it is opened, and what is saved of a damaged one."""

import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

_LOCK_SECONDS = 0.5
_MAGIC = b"SQLite format 3\0"
_APPLICATION = int.from_bytes(b"EdAd", "big")
"""SQLite's `application_id`: a file whose tables are damaged is still known as a spool by it."""

_CREATE = """CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload TEXT, checksum INTEGER)"""
_COLUMNS = [(b"number", b"INTEGER"), (b"topic", b"TEXT"), (b"payload", b"TEXT")]
_CHECKSUM = (b"checksum", b"INTEGER")
SELECT = "SELECT number, topic, payload, checksum FROM message ORDER BY number"
_SELECT_BEHIND = SELECT.replace("ORDER", "WHERE number > ? ORDER")
_LARGEST_NUMBER = 2**62


class _OtherTables(sqlite3.DatabaseError):
    """A whole database, but no spool's: another program's, or one whose tables are damaged."""


def open_spool(path: Path, notices: list[str]) -> sqlite3.Connection:
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
        with sqlite_errors():
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
    base.execute(SELECT + " LIMIT 1")


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
def sqlite_errors() -> Iterator[None]:
    """Raise `sqlite3.DatabaseError` where a damaged text makes Python raise something else."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"a damaged text ({error.reason})") from error


def insert(base: sqlite3.Connection, topic: str, payload: str) -> None:
    """Append a message with its checksum.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    row = (topic, payload, _checksum(topic.encode(), payload.encode()))
    base.execute("INSERT INTO message (topic, payload, checksum) VALUES (?, ?, ?)", row)


def _checksum(topic: bytes, payload: bytes) -> int:
    return zlib.crc32(topic + b"\0" + payload)


def checked(row: tuple[Any, ...]) -> tuple[str, str] | None:
    """Return topic and payload; None: they are damaged. Older versions wrote no checksum."""
    number, topic, payload, checksum = row
    if (
        not isinstance(number, int)
        or not isinstance(topic, bytes)
        or not isinstance(payload, bytes)
    ):
        return None
    if checksum is not None and checksum != _checksum(topic, payload):
        return None
    try:
        return topic.decode(), payload.decode()
    except UnicodeDecodeError:
        return None


def readable(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the messages of a damaged file; what SQLite cannot read is passed over."""
    with suppress(sqlite3.Error), sqlite_errors(), closing(sqlite3.connect(path)) as base:
        base.text_factory = bytes
        # Behind a damaged page, in steps that grow until the next whole one, or the end.
        seen: set[int] = set()
        last, step = 0, 1
        while last < _LARGEST_NUMBER:
            try:
                for row in base.execute(_SELECT_BEHIND, (last,)):
                    message = checked(row)
                    if message is None or row[3] is None or row[0] in seen:
                        continue  # damaged pages may lead to the same messages twice
                    seen.add(row[0])
                    last, step = max(last, row[0]), 1
                    yield message
                return
            except sqlite3.DatabaseError:
                last, step = last + step, 2 * step


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell damage from a full disk, a failing one, and a file that is in use or not available."""
    return not re.search("locked|full|I/O|unable to open|closed|readonly", str(error))


def is_spool(path: Path, error: sqlite3.DatabaseError) -> bool:
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
