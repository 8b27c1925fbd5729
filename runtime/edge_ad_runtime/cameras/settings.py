"""How a camera is opened: picture size, pace, timeouts."""

import math
from dataclasses import dataclass

from edge_ad_runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """Wishes of the user; None leaves what the driver has.

    Attributes:
        width: pixels.
        height: pixels.
        fps: frames a second.
        fourcc: pixel format of a USB camera in four letters, such as `MJPG`.
        exposure: in the driver's unit, V4L2's is 0.1 ms; switches the automatic exposure off.
        open_timeout: seconds that a network camera may take to answer.
        read_timeout: seconds that it may take for a frame.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    fourcc: str | None = None
    exposure: float | None = None
    open_timeout: float = 5.0
    read_timeout: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what no camera has.

        Raises:
            DataError: a value is out of range.
        """
        for name in ("width", "height", "fps", "open_timeout", "read_timeout"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise DataError(f"expected {name} above 0, got {value}")
        if self.fourcc is not None and (len(self.fourcc) != 4 or not self.fourcc.isascii()):
            raise DataError(f"expected fourcc as four letters such as MJPG, got {self.fourcc!r}")
