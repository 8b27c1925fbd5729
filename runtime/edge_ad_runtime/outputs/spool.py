"""A queue on disk: what waits in it survives a restart."""

import sqlite3
import threading
from pathlib import Path

from edge_ad_runtime.errors import DataError


class Spool:
    """Messages, oldest first, at most `limit`; may be used by several threads."""

    def __init__(self, path: Path, *, limit: int) -> None:
        """Open or create the file.

        Raises:
            DataError: it cannot be opened, or is something else.
        """
        self._limit = limit
        self._filled = threading.Condition()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            # Survives the end of the process; a power cut may cost the last moments, for which the
            # flash of a device is not worn by a sync for every verdict.
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=OFF")
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS message "
                "(number INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT, payload TEXT)"
            )
            (self._count,) = self._base.execute("SELECT COUNT(*) FROM message").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"cannot use the spool {path} ({error}): choose another file"
            ) from error

    def __len__(self) -> int:
        """Return how many messages wait."""
        return int(self._count)

    def put(self, topic: str, payload: str) -> None:
        """Append a message.

        Raises:
            OSError: the disk is full; or the spool was, and lost its oldest message.
        """
        with self._filled:
            try:
                self._base.execute(
                    "INSERT INTO message (topic, payload) VALUES (?, ?)", (topic, payload)
                )
                self._count += 1
                full = self._count > self._limit
                if full:
                    self._base.execute(
                        "DELETE FROM message WHERE number = (SELECT MIN(number) FROM message)"
                    )
                    self._count -= 1
            except sqlite3.Error as error:
                raise OSError(f"cannot write the spool: {error}") from error
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
            if not self._count:
                return None
            try:
                found: tuple[int, str, str] | None = self._base.execute(
                    "SELECT number, topic, payload FROM message ORDER BY number LIMIT 1"
                ).fetchone()
            except sqlite3.Error as error:
                raise OSError(f"cannot read the spool: {error}") from error
        return found

    def remove(self, number: int) -> None:
        """Delete a message that has arrived.

        Raises:
            OSError: the file cannot be written.
        """
        with self._filled:
            try:
                found = self._base.execute("DELETE FROM message WHERE number = ?", (number,))
            except sqlite3.Error as error:
                raise OSError(f"cannot write the spool: {error}") from error
            self._count -= found.rowcount

    def close(self) -> None:
        """Close the file; what waits is there at the next start."""
        self._base.close()
