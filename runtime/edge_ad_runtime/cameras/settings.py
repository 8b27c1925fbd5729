"""How a camera is opened: picture size, frame rate, timeouts."""

from dataclasses import dataclass

from edge_ad_runtime.errors import ConfigError

_RANGES: dict[str, tuple[float, float]] = {
    "width": (1, 65_535),
    "height": (1, 65_535),
    "fps": (0.01, 10_000),
    "exposure": (-1e6, 1e6),
    "open_timeout": (0.1, 300),
    "read_timeout": (0.1, 3_600),
}
"""Smallest and largest value, both allowed; beyond them OpenCV overflows or nobody waits."""


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
        read_timeout: seconds that it may take for a frame, 0.1 to 3600.
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
            ConfigError: a value is out of range.
        """
        for name, (lowest, highest) in _RANGES.items():
            value = getattr(self, name)
            # `not` also catches NaN, which compares false with everything.
            if value is not None and not lowest <= value <= highest:
                raise ConfigError(f"expected {name} from {lowest:g} to {highest:g}, got {value}")
        if self.fourcc is not None and (
            len(self.fourcc) != 4 or not (self.fourcc.isascii() and self.fourcc.isprintable())
        ):
            raise ConfigError(f"expected fourcc as four letters such as MJPG, got {self.fourcc!r}")
