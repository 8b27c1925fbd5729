"""A window on the device's own screen."""

import cv2

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.model.overlay import draw_overlay
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.pictures import InfoOf


class Window:
    """Shows each frame under its heat map, a window for each camera; use it in one thread only."""

    def __init__(self, info: InfoOf) -> None:
        """Show with the colours of the camera's model; `info` gives it."""
        self._info = info

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Show a verdict.

        Raises:
            OSError: there is no screen.
        """
        picture = draw_overlay(captured.frame, result, self._info(captured.camera))
        try:
            cv2.imshow(captured.camera, picture)
            cv2.waitKey(1)
        except cv2.error as error:
            raise OSError(
                f"cannot show a window ({error.err}): --show needs a screen, and an OpenCV that is "
                "not the headless one; --serve needs neither"
            ) from error
