"""Open the cameras of a stream."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial

from edge_ad_runtime.cameras import FrameSource, open_source
from edge_ad_runtime.errors import CameraError, EdgeAdError
from edge_ad_runtime.stream.config import CameraConfig
from edge_ad_runtime.supervisor import Supervisor

logger = logging.getLogger(__name__)


def open_camera(camera: CameraConfig) -> FrameSource:
    """Open the source of one camera.

    Raises:
        CameraError: it cannot be opened.
        DataError: its file or folder cannot be used.
    """
    return open_source(camera.source, camera.settings, watch=camera.watch)


def open_all(cameras: Sequence[CameraConfig], supervisor: Supervisor) -> list[FrameSource | None]:
    """Open all at the same time, since each may take as long as a network's timeout.

    Raises:
        CameraError: none could be opened.
        DataError: a file or folder cannot be used.
    """
    opening: list[Future[FrameSource]] = [Future() for _ in cameras]
    with ExitStack() as opened:
        for camera, future in zip(cameras, opening, strict=True):
            opened.callback(future.add_done_callback, _close_opened)
            work = partial(_open_into, future, camera)
            supervisor.start(f"opening {camera.name}", work, died=future.set_exception)
        errors = [future.exception() for future in opening]
        for error in errors:
            if error is not None and (not isinstance(error, CameraError) or all(errors)):
                raise error
        opened.pop_all()
    for camera, error in zip(cameras, errors, strict=True):
        if error is not None:
            logger.warning("%s: %s", camera.name, error)
    return [None if future.exception() else future.result() for future in opening]


def _open_into(future: "Future[FrameSource]", camera: CameraConfig) -> None:
    try:
        future.set_result(open_camera(camera))
    except EdgeAdError as error:
        future.set_exception(error)


def _close_opened(future: "Future[FrameSource]") -> None:
    if future.exception() is None:
        future.result().close()
