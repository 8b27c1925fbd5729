"""How many pictures are kept: by count, age and total size."""

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_OURS = re.compile(r"([0-9]{6,}-.+|[0-9]{8}T[0-9]{12}Z-[0-9]{6,})\.jpg")
"""What `OverlayFolder` calls its files; nothing else is ever deleted."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the oldest pictures go; None: no limit."""

    count: int | None = None
    days: float | None = None
    megabytes: float | None = None


class Retention:
    """The pictures of a folder and its subfolders, the oldest of which are deleted."""

    def __init__(
        self, folder: Path, limits: Limits, *, now: Callable[[], float] = time.time
    ) -> None:
        """List the pictures that earlier runs left.

        Args:
            folder: where they lie.
            limits: what may remain.
            now: the time of day in seconds since 1970, as in the files' times.
        """
        self._limits = limits
        self._now = now
        found = [
            (path.stat().st_mtime, path, path.stat().st_size)
            for path in folder.rglob("*.jpg")
            if _OURS.fullmatch(path.name)
        ]
        self._kept = deque(sorted(found))
        self._bytes = sum(size for _, _, size in found)

    def add(self, path: Path, size: int) -> None:
        """Note a new picture and delete the oldest ones beyond the limits.

        Raises:
            OSError: one cannot be deleted.
        """
        if self._limits == Limits():
            return
        self._kept.append((self._now(), path, size))
        self._bytes += size
        # The newest stays, whatever the limits.
        while len(self._kept) > 1 and self._is_too_much():
            _, oldest, oldest_size = self._kept.popleft()
            self._bytes -= oldest_size
            oldest.unlink(missing_ok=True)

    def _is_too_much(self) -> bool:
        limits = self._limits
        if limits.count is not None and len(self._kept) > limits.count:
            return True
        if limits.megabytes is not None and self._bytes > limits.megabytes * 1e6:
            return True
        return limits.days is not None and self._now() - self._kept[0][0] > limits.days * 86_400
