"""How a camera is opened: picture size, frame rate, timeouts."""

from dataclasses import dataclass

from edge_ad_runtime.config_table import Text, check_settings, setting

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
