"""A text file that is begun anew when it has grown: FILE, FILE.1 (the newest old one), FILE.2..."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

from edge_ad_runtime.errors import DataError


class RotatingFile:
    """Appends whole lines or nothing; made for `JsonLines`."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Open the file for appending.

        Args:
            path: of the newest lines.
            max_bytes: it is begun anew before it grows beyond.
            files: so many old ones are kept.

        Raises:
            DataError: it cannot be written.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._open()
        except OSError as error:
            raise DataError(
                f"cannot write the lines to {path}: {error.strerror}: choose another file"
            ) from error

    def write(self, text: str) -> int:
        """Append the text; a part of it that a full disk took is taken back.

        Raises:
            OSError: it cannot be appended.
        """
        if self._file is None:
            self._file = self._open()
        data = text.encode()
        size = self._file.tell()
        if size and size + len(data) > self._max_bytes:
            self._rotate()
            return self.write(text)
        written = self._file.write(data)
        if written < len(data):
            self._file.truncate(size)
            self._file.seek(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        file = open(self._path, "ab", buffering=0)
        file.seek(0, os.SEEK_END)
        return file

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                os.replace(older, self._numbered(number + 1))
        os.replace(self._path, self._numbered(1))
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
