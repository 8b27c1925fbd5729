"""A camera that plays given frames, for tests without hardware."""

from collections.abc import Callable, Iterable
from datetime import datetime

from edge_ad_runtime.cameras.base import CapturedFrame, FrameSource, utc_now
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.model.image import Frame


class FakeCamera(FrameSource):
    """Delivers the given frames, one per call; an error among them is raised in its turn.

        FakeCamera([part, part, CameraError("unplugged")], now=clock)

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
