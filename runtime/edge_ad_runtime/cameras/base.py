"""A source of frames, and a captured frame."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from edge_ad_runtime.model.image import Frame, Preprocessing


def utc_now() -> datetime:
    """Return the time of day in UTC, aware."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A frame at the size of a model's input, made ahead of the inference.

    Attributes:
        frame: uint8, h x w x 3, BGR.
        preprocessing: how it was made; a model loaded since then may need it made differently.
        milliseconds: how long it took.
    """

    frame: Frame
    preprocessing: Preprocessing
    milliseconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedFrame:
    """A frame and where it comes from.

    Attributes:
        number: position in the source, from 0; unreadable and skipped frames are counted too, so
            they show as gaps.
        frame: uint8, H x W x 3, BGR.
        timestamp: when it was captured or read, aware.
        path: the picture file, where the source consists of pictures.
        camera: the source's name in its stream; empty outside a stream.
        trigger: the id of the trigger that asked for this frame, if one did.
        prepared: the frame as the model sees it, if the reader has made it already.
    """

    number: int
    frame: Frame
    timestamp: datetime = field(default_factory=utc_now)
    path: Path | None = None
    camera: str = ""
    trigger: str | None = None
    prepared: Prepared | None = None


class FrameSource(ABC):
    """Frames, one after the other, each once.

    Attributes:
        name: the source's name in results and messages; never holds credentials.
        live: frames pass whether or not they are read (a camera), so only the newest one counts;
            otherwise (files) every frame counts.
    """

    name: str
    live: bool

    @abstractmethod
    def read(self) -> CapturedFrame | None:
        """Wait for the next frame; None: there are no more.

        Raises:
            FrameError: this one frame is lost; the next call goes on with the one after it. (A
                plug-in may raise any DataError.)
            CameraError: the source is lost.
        """

    def cancel(self) -> None:  # noqa: B027  (most sources wait for moments only)
        """Make a `read` that waits in another thread return None soon."""

    def close(self) -> None:  # noqa: B027  (a source without resources need not override it)
        """Release the source; it is not read again."""

    def __enter__(self) -> "FrameSource":
        """Return the source itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the source."""
        self.close()
