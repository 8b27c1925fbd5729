"""Picture files: a list of them, and a folder into which another program writes them."""

import math
import os
import stat
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource
from edge_ad_runtime.errors import DataError, FrameError, redact
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.picture_file import PICTURE_FORMATS, PICTURE_SUFFIXES, read_frame

_State = tuple[int, int]
"""Size and time of change in nanoseconds."""

_REMEMBERED = 100_000
"""How many pictures that have gone are remembered, beyond as many as were ever there at once."""


class PictureFiles(FrameSource):
    """A list of picture files, each read once."""

    live = False

    def __init__(self, paths: Sequence[Path], *, name: str) -> None:
        """Keep the list.

        Args:
            paths: in the order in which they are read.
            name: the camera's name in results.

        Raises:
            DataError: the list is empty.
        """
        if not paths:
            raise DataError(
                f"found no pictures ({PICTURE_FORMATS}) in {name}: check the path or the pattern"
            )
        self.name = name
        self._paths = paths
        self._next = 0

    def read(self) -> CapturedFrame | None:
        """Read the next picture; None after the last one.

        Raises:
            FrameError: the picture cannot be read; the next call reads the one after it.
        """
        if self._next >= len(self._paths):
            return None
        number, path = self._next, self._paths[self._next]
        self._next += 1
        return CapturedFrame(number=number, frame=_read_picture(path), path=path)


class WatchedFolder(FrameSource):
    """The pictures that arrive in a folder from now on, in order of their time.

    A picture is complete when its size and time have not changed from one look to the next, and it
    can be read: what cannot may still be written, by a copy that pauses, and fails only if it stays
    as it is for some seconds. Files that are renamed into the folder, the better way, are taken as
    quickly. A picture that goes away and comes back unchanged is not read again: a network share
    may look empty for a moment.
    """

    live = False

    def __init__(self, folder: Path, *, every: float = 0.2, patience: float = 10.0) -> None:
        """Remember what is there already, which is not read.

        Args:
            folder: is looked at without its subfolders.
            every: seconds between two looks.
            patience: seconds for which a picture that cannot be read must stay as it is, until it
                counts as failed.

        Raises:
            DataError: the folder cannot be listed.
        """
        self.name = str(folder)
        self._folder = folder
        self._every = every
        self._patience = patience
        self._cancelled = threading.Event()
        self._next = 0
        self._waiting: deque[str] = deque()
        # Pictures that could not be read, in which state, and until when they may become complete.
        self._doubtful: dict[str, tuple[_State | None, float]] = {}
        self._growing: dict[str, _State] = {}
        self._most = 0
        try:
            self._done = self._look()
        except OSError as error:
            raise DataError(
                f"cannot list the folder {redact(str(folder))}: {error.strerror}: "
                "check the path and its permissions"
            ) from error

    def read(self) -> CapturedFrame | None:
        """Wait for the next picture; None after `cancel`.

        Raises:
            FrameError: a picture cannot be read; the next call reads the one after it.
        """
        while True:
            while not self._waiting:
                if self._cancelled.wait(self._every):
                    return None
                self._collect()
            name = self._waiting.popleft()
            path, state = self._folder / name, self._done.get(name)
            doubted, _ = self._doubtful.pop(name, (None, 0.0))
            try:
                frame = _read_picture(path)
            except FrameError:
                if doubted != state:
                    self._doubtful[name] = state, monotonic() + self._patience
                    continue
                self._next += 1
                raise
            number = self._next
            self._next += 1
            return CapturedFrame(number=number, frame=frame, path=path)

    def cancel(self) -> None:
        """Let a waiting `read` return."""
        self._cancelled.set()

    def _collect(self) -> None:
        """Queue the pictures that are new and no longer grow."""
        try:
            found = self._look()
        except OSError:
            return  # a network share that is away; its pictures come when it is back
        fresh = {name: state for name, state in found.items() if self._done.get(name) != state}
        complete = [name for name, state in fresh.items() if self._growing.get(name) == state]
        self._growing = fresh
        for name in sorted(complete, key=lambda name: (fresh[name][1], name)):
            self._done[name] = self._growing.pop(name)
            self._waiting.append(name)
        for name, (state, until) in self._doubtful.items():
            if name not in found or (found[name] == state and monotonic() >= until):
                self._doubtful[name] = state, math.inf
                self._waiting.append(name)
        self._most = max(self._most, len(found))
        if len(self._done) > 2 * self._most + _REMEMBERED:
            self._forget(found)

    def _forget(self, found: Mapping[str, _State]) -> None:
        """Keep memory bounded where pictures are removed after use: forget the oldest of them."""
        gone = [name for name in self._done if name not in found]
        for name in gone[: len(self._done) - self._most - _REMEMBERED]:
            del self._done[name]

    def _look(self) -> dict[str, _State]:
        """Return the regular picture files that are there.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if suffix not in PICTURE_SUFFIXES or entry.name.startswith("."):
                    continue
                try:
                    state = entry.stat()
                except OSError:
                    continue  # removed meanwhile, or a link to nothing, to itself, out of reach
                if stat.S_ISREG(state.st_mode):
                    found[entry.name] = (state.st_size, state.st_mtime_ns)
        return found


def _read_picture(path: Path) -> Frame:
    try:
        return read_frame(path)
    except DataError as error:
        raise FrameError(str(error)) from error
