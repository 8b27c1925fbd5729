"""A whole stream as configured: cameras, models, triggers, alarms, outputs."""

import logging
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edge_ad_runtime.cameras import FrameSource, open_source
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.errors import CameraError, EdgeAdError
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.scorer import Scorer
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.stream.alarm import Alarm
from edge_ad_runtime.stream.config import CameraConfig, StreamConfig
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.model_slot import Station, content_of, reload
from edge_ad_runtime.stream.summary import StreamSummary, sum_up
from edge_ad_runtime.stream.systemd import Watchdog, notify
from edge_ad_runtime.stream.trigger_inputs import read_lines
from edge_ad_runtime.stream.triggers import Triggers
from edge_ad_runtime.stream.watchers import Drift, Monitor, Overload

logger = logging.getLogger(__name__)


class Line:
    """Everything that runs in one `edge-ad stream`.

    Attributes:
        config: what was asked for.
        stations: the models and their loops.
        triggers: take requests; None where every frame is scored.
        delivery: takes verdicts and events.
    """

    def __init__(self, config: StreamConfig) -> None:
        """Load the model files and open the cameras; no thread runs yet.

        A camera that cannot be opened while another one can is lost and tried again.

        Raises:
            ModelFileError, DeviceError: a model file cannot be used.
            CameraError: no camera can be opened.
            DataError: a file or folder cannot be used.
        """
        self.config = config
        self.delivery = Delivery()
        names = [camera.name for camera in config.cameras]
        self.triggers = (
            None
            if config.trigger.mode == "free"
            else Triggers(names, self.delivery.event, timeout=config.trigger.timeout)
        )
        self.stations = [
            self._station(path) for path in dict.fromkeys(camera.model for camera in config.cameras)
        ]
        self._opened = _open_all(config.cameras)

    @property
    def files_only(self) -> bool:
        """Whether no source is live, so that nothing is urgent."""
        return not any(source is None or source.live for source in self._opened)

    def loop_of(self, camera: str) -> Loop:
        """Return the loop that scores a camera."""
        paths = {item.name: item.model for item in self.config.cameras}
        return next(item.loop for item in self.stations if item.path == paths[camera])

    def info_of(self, camera: str) -> ModelInfo:
        """Return what the model in use at a camera says about itself."""
        return scorer_of(self.loop_of(camera)).info

    def set_threshold(self, camera: str, threshold: float) -> None:
        """Change the decision limit of the model of a camera, until the next reload.

        Raises:
            DataError: it is not a finite number.
        """
        loop = self.loop_of(camera)
        loop.scorer = scorer_of(loop).with_threshold(threshold)
        logger.warning("the threshold at %s is now %g", camera, threshold)

    def reload(self, config: StreamConfig) -> None:
        """Take over the threshold of a new configuration, and model files that have changed."""
        reload(self.stations, config.threshold, self.delivery.event)

    def run(self, stop: threading.Event) -> StreamSummary:
        """Score until all sources have ended or `stop` is set.

        Raises:
            DeviceError: a device can no longer run its model.
        """
        self._add_cameras()
        if self.triggers is not None and self.config.trigger.mode == "stdin":
            read_lines(self.triggers, sys.stdin, self.delivery.event)
        watchdog = Watchdog(len(self.stations))
        notify("READY=1")
        try:
            self._run_loops(stop, watchdog)
        finally:
            notify("STOPPING=1")
            self.delivery.close()
        return sum_up([station.loop.tally for station in self.stations], self.delivery.lost)

    def _station(self, path: Path) -> Station:
        config = self.config
        scorer = Scorer(
            path, device=config.device, threads=config.threads, threshold=config.threshold
        )
        return Station(
            path=path,
            device=config.device,
            threads=config.threads,
            loop=Loop(scorer, self.delivery, self.triggers),
            content=content_of(path),
        )

    def _add_cameras(self) -> None:
        for camera, source in zip(self.config.cameras, self._opened, strict=True):
            loop = self.loop_of(camera.name)
            feed = Feed(
                camera.name,
                source,
                reopen=partial(_open, camera),
                recovery=self.config.recovery,
                every=camera.every,
                report=self.delivery.event,
                prepare=loop.prepare,
                changed=loop.changed,
            )
            endless = source is None or source.live or camera.watch
            loop.add(feed, self._monitors(loop, feed, endless=endless))

    def _monitors(self, loop: Loop, feed: Feed, *, endless: bool) -> Sequence[Monitor]:
        """Return what watches the verdicts of a camera; of files only the alarm does."""
        found: list[Monitor] = []
        if endless:
            found = [Drift(lambda: scorer_of(loop).info), Overload(lambda: feed.skipped)]
        if self.config.alarm is not None:
            found.append(Alarm(self.config.alarm, lambda: scorer_of(loop).info.map_threshold))
        return found

    def _run_loops(self, stop: threading.Event, watchdog: Watchdog) -> None:
        """Run the first loop here and each further one in a thread; one's failure ends all.

        Raises:
            DeviceError: of the first loop that failed.
        """
        errors: list[EdgeAdError] = []

        def run(index: int) -> None:
            loop = self.stations[index].loop
            turned = partial(watchdog.turned, index)
            try:
                loop.run(stop, max_frames=self.config.max_frames, after_round=turned)
            except EdgeAdError as error:
                errors.append(error)
                stop.set()
            if loop.tally.output_closed:
                stop.set()

        with ExitStack() as threads:
            for index in range(1, len(self.stations)):
                thread = threading.Thread(target=run, args=(index,), name=f"edge-ad loop {index}")
                thread.start()
                threads.callback(thread.join)
            run(0)
        if errors:
            raise errors[0]


def scorer_of(loop: Loop) -> Scorer:
    """Return the model file that a loop of a line runs."""
    if not isinstance(loop.scorer, Scorer):
        raise TypeError("the loops of a line run model files")
    return loop.scorer


def _open(camera: CameraConfig) -> FrameSource:
    return open_source(camera.source, camera.settings, watch=camera.watch)


def _open_all(cameras: Sequence[CameraConfig]) -> list[FrameSource | None]:
    """Open all at the same time, since each may take as long as a network's timeout.

    Raises:
        CameraError: none could be opened.
        DataError: a file or folder cannot be used.
    """
    with ThreadPoolExecutor(max_workers=len(cameras)) as pool:
        opening = [pool.submit(_open, camera) for camera in cameras]
    errors = [future.exception() for future in opening]
    for error in errors:
        if error is not None and (not isinstance(error, CameraError) or all(errors)):
            for future in opening:
                if future.exception() is None:
                    future.result().close()
            raise error
    for camera, error in zip(cameras, errors, strict=True):
        if error is not None:
            logger.warning("%s: %s", camera.name, error)
    return [None if future.exception() else future.result() for future in opening]
