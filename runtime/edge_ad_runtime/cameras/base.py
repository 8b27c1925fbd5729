"""What every camera is to a stream: frames, their source, its settings, and one for tests."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from edge_ad_runtime.config_table import Text, check_settings, setting
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.model.image import Frame, Preprocessing

_FOURCC = Text(r"[\x20-\x7e]{4}", "four letters such as 'MJPG'")


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """The user's settings for a camera; None leaves what the driver has.

    Attributes:
        width: pixels, 1 to 65535.
        height: pixels, 1 to 65535.
        fps: frames a second, 0.01 to 10,000.
        fourcc: pixel format of a USB camera in four letters, such as `MJPG`.
        exposure: in the driver's unit (V4L2: 0.1 ms); switches the automatic exposure off.
        open_timeout: seconds that a network camera may take to answer, 0.1 to 300.
        read_timeout: seconds after which a network camera's connection without a frame is given
            up, 0.1 to 3600. A stream notices a stall sooner, by its own `stall_timeout`.
    """

    width: int | None = setting(None, low=1, high=65_535)
    height: int | None = setting(None, low=1, high=65_535)
    fps: float | None = setting(None, low=0.01, high=10_000)
    fourcc: str | None = setting(None, text=_FOURCC)
    exposure: float | None = setting(None, low=-1_000_000, high=1_000_000)
    open_timeout: float = setting(5.0, low=0.1, high=300)
    read_timeout: float = setting(30.0, low=0.1, high=3600)

    def __post_init__(self) -> None:
        """Refuse what no camera has.

        Raises:
            ConfigError: a value is out of range.
        """
        check_settings(self)


utc_now = partial(datetime.now, timezone.utc)
"""Returns the present time in UTC, aware."""


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
    frame: Frame = field(repr=False)
    timestamp: datetime = field(default_factory=utc_now)
    path: Path | None = None
    camera: str = ""
    trigger: str | None = None
    prepared: Prepared | None = field(default=None, repr=False)


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

    def __exit__(self, *_: object) -> None:
        """Close the source."""
        self.close()


class FakeCamera(FrameSource):
    """Delivers the given frames, one per call; an error among them is raised in its turn.

        FakeCamera([part, part, CameraError("unplugged")], live=False)

    With a generator the test controls the frame rate: the source waits as long as it does.
    """

    def __init__(
        self,
        frames: Iterable[Frame | EdgeAdError],
        *,
        name: str = "fake",
        live: bool = True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Keep the frames.

        Args:
            frames: what is delivered, in order; uint8, H x W x 3, BGR.
            name: the camera's name in results.
            live: behave as a camera (newest frame wins) or as a file (every frame counts).
            now: gives the timestamps; the current time by default.
        """
        self.name = name
        self.live = live
        self._frames = enumerate(frames)
        self._now = now

    def read(self) -> CapturedFrame | None:
        """Deliver the next frame; None after the last one.

        Raises:
            EdgeAdError: the error given in place of this frame.
        """
        number, item = next(self._frames, (0, None))
        if isinstance(item, EdgeAdError):
            raise item
        if item is None:
            return None
        return CapturedFrame(number=number, frame=item, timestamp=self._now())
