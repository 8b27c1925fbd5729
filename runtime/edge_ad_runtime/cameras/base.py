"""What a source of frames is."""

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
        preprocessing: what made it; a model that was replaced meanwhile may want another.
        milliseconds: what making it took.
    """

    frame: Frame
    preprocessing: Preprocessing
    milliseconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedFrame:
    """A frame and where it comes from.

    Attributes:
        number: position in the source, from 0; unreadable and skipped frames have one too, so that
            a gap tells of them.
        frame: uint8, H x W x 3, BGR.
        timestamp: when it was captured or read, aware.
        path: the picture file, where the source is made of pictures.
        camera: the name under which the stream knows the source; empty before it entered one.
        trigger: the id of the trigger that asked for this frame, if one did.
        prepared: the frame as the model sees it, if the reader made that already.
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
        name: what stands in results and messages; never holds credentials.
        live: frames pass whether or not they are read (a camera), so the newest is what counts;
            otherwise (files) every frame counts.
    """

    name: str
    live: bool

    @abstractmethod
    def read(self) -> CapturedFrame | None:
        """Wait for the next frame; None: there are no more.

        Raises:
            DataError: this one frame is lost; the next call goes on behind it.
            CameraError: the source is lost.
        """

    def cancel(self) -> None:  # noqa: B027  (most sources wait for moments only)
        """Let a `read` that waits in another thread return None soon."""

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
