"""Verdicts and events as lines of JSON in a file, which is rotated when it has grown."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_ad_runtime.config_table import setting
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import lock_open_file, own_path
from edge_ad_runtime.outputs.base import JsonLines


@dataclass(frozen=True, kw_only=True)
class JsonConfig:
    """Lines of JSON in a file, which is rotated at `max_mb`; `files` old ones are kept."""

    path: Path = setting(expected="the path of a file")
    max_mb: float = setting(100.0, low=0.001, high=1_000_000)
    files: int = setting(10, low=1, high=10_000)


class JsonFile(JsonLines):
    """`JsonLines` in a file of its own, which is rotated."""

    def __init__(self, config: JsonConfig) -> None:
        """Open the file.

        Raises:
            DataError: it cannot be written.
        """
        self.name = str(config.path)
        max_bytes = round(config.max_mb * 1e6)
        self._rotating = RotatingFile(config.path, max_bytes=max_bytes, files=config.files)
        super().__init__(self._rotating)

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: the system could not write all of it.
        """
        self._rotating.close()


class RotatingFile:
    """Appends whole lines or nothing: FILE, FILE.1 (the newest old one), FILE.2..."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Open the file for appending.

        Args:
            path: of the newest lines.
            max_bytes: it is rotated before it grows larger.
            files: how many old ones are kept.

        Raises:
            DataError: it cannot be written, or another stream writes it.
        """
        self._max_bytes = max_bytes
        self._files = files
        try:
            if path.exists() and not path.is_file():
                raise DataError(f"expected {path} to be a file for lines: choose another path")
            # Later files lie beside the real one, perhaps on another disk.
            self._path = own_path(path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._open()
        except BlockingIOError as error:
            # Each would rotate the file under the other.
            raise DataError(
                f"another stream writes its lines to {path}: give each stream a file of its own"
            ) from error
        except OSError as error:
            raise DataError(
                f"cannot write the lines to {path}: {error.strerror}: choose another file"
            ) from error

    def write(self, text: str) -> int:
        """Append the text; a part of it that a full disk took is taken back.

        Raises:
            OSError: it cannot be appended.
        """
        if self._file is not None and not self._is_there(self._file):
            self.close()
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
        """Close the file.

        Raises:
            OSError: the system could not write all of it.
        """
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _is_there(self, file: BinaryIO) -> bool:
        """Whether the path still leads to the file, which others may delete or move away."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def _open(self) -> BinaryIO:
        file = open(self._path, "ab+", buffering=0, opener=_open_no_link)
        try:
            lock_open_file(file.fileno())
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    # A power cut or a full disk tore the last line: the next one stands by itself.
                    file.write(b"\n")
        except OSError:
            file.close()
            raise
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


def _open_no_link(path: str, flags: int) -> int:
    """Open a file, but no link that somebody has made since the start."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
