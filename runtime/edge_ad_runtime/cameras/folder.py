"""Picture files as a source: each one once, in order of path."""

from collections.abc import Sequence
from pathlib import Path

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.image import read_frame


class Pictures(FrameSource):
    """A list of picture files."""

    live = False

    def __init__(self, paths: Sequence[Path], *, name: str) -> None:
        """Keep the list.

        Args:
            paths: in the order in which they are read.
            name: what stands in results as the camera.

        Raises:
            DataError: the list is empty.
        """
        if not paths:
            raise DataError(
                f"found no pictures (PNG, JPEG, BMP, TIFF) in {name}: check the path or the pattern"
            )
        self.name = name
        self._paths = paths
        self._next = 0

    def read(self) -> CapturedFrame | None:
        """Read the next picture; None behind the last one.

        Raises:
            DataError: the picture cannot be read; the next call reads the one behind it.
        """
        if self._next >= len(self._paths):
            return None
        number, path = self._next, self._paths[self._next]
        self._next += 1
        return CapturedFrame(number=number, frame=read_frame(path), path=path)
