"""The loop: newest frames in, verdicts out, for the cameras that share a model."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.model.scorer import Scorer
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.stream.prepared import (
    FrameScorer,
    batching_wins,
    prepare,
    score_one,
    score_together,
)
from edge_ad_runtime.stream.summary import Tally
from edge_ad_runtime.stream.triggers import Triggers
from edge_ad_runtime.stream.watchers import Monitor

_WAIT_SECONDS = 0.2
"""How soon the loop notices a stop or a stall while no frame comes."""


class Loop:
    """One model and its cameras.

    Each round takes at most one frame of each camera, the newest, and never waits for a second one:
    frames that happen to be there together are scored together where that is quicker.

    Attributes:
        scorer: the model; may be exchanged between two frames, from any thread.
        tally: counts.
        changed: to be given to the feeds: notified when a frame has come.
        last_frame: the newest frame that was scored.
    """

    def __init__(
        self, scorer: FrameScorer, delivery: Delivery, triggers: Triggers | None = None
    ) -> None:
        """Start without cameras: a feed needs `changed` and `prepare` of its loop.

        Args:
            scorer: the model.
            delivery: takes verdicts and events.
            triggers: frames are scored on demand only; None: as they come.
        """
        self.scorer = scorer
        self.tally = Tally()
        self.changed = threading.Condition()
        self._delivery = delivery
        self.last_frame: Frame | None = None
        self._feeds: list[Feed] = []
        self._monitors: dict[str, Sequence[Monitor]] = {}
        self._triggers = triggers
        self._batching = False
        if triggers is not None:
            triggers.listen(self.changed)

    @property
    def prepare(self) -> Callable[[Frame], Prepared] | None:
        """What the readers of files do ahead; None where the scorer takes whole frames only."""
        if not isinstance(self.scorer, Scorer):
            return None
        return self._prepare

    def add(self, feed: Feed, monitors: Sequence[Monitor] = ()) -> None:
        """Give the loop a camera, and what watches its verdicts."""
        self._feeds.append(feed)
        self._monitors[feed.name] = monitors
        if len(self._feeds) > 1 and isinstance(self.scorer, Scorer):
            self._batching = batching_wins(self.scorer, len(self._feeds))

    def run(
        self,
        stop: threading.Event,
        *,
        max_frames: int | None = None,
        after_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Score until all sources have ended or `stop` is set, and close the sources.

        Args:
            stop: ends the loop after the current frame.
            max_frames: end after so many frames, failed ones included.
            after_round: called after each round and each wait; must be quick.

        Raises:
            DeviceError: the device can no longer run the model.
        """
        try:
            while not stop.is_set() and (max_frames is None or self.tally.handled < max_frames):
                waiting = self._take_all()
                if waiting:
                    left = None if max_frames is None else max_frames - self.tally.handled
                    self._handle(waiting[:left])
                elif self._is_over():
                    break
                else:
                    self._wait()
                after_round()
        except CameraError as error:
            self.tally.camera_error = error
        except BrokenPipeError:
            self.tally.output_closed = True
        finally:
            for feed in self._feeds:
                feed.close()
                if self._triggers is not None:
                    self._triggers.close(feed.name, "the stream ended")
            self.tally.skipped = sum(feed.skipped for feed in self._feeds)

    def _prepare(self, frame: Frame) -> Prepared:
        scorer = self.scorer
        if not isinstance(scorer, Scorer):
            raise TypeError("a scorer that prepares frames was exchanged for one that cannot")
        return prepare(scorer, frame)

    def _take_all(self) -> list[tuple[Feed, CapturedFrame]]:
        """Return what is there of each camera, at most one frame, without waiting."""
        found = []
        for feed in self._feeds:
            feed.watch()
            try:
                captured = self._take(feed)
            except DataError as error:
                self._fail(feed, error)
            else:
                if captured is not None:
                    found.append((feed, captured))
        return found

    def _take(self, feed: Feed) -> CapturedFrame | None:
        """Return the next frame of a camera, if it is wanted.

        Raises:
            DataError: one frame is lost.
            CameraError: the camera is lost for good.
        """
        if self._triggers is None:
            return feed.take()
        request = self._triggers.next(feed.name)
        if request is None:
            return None
        if not request.armed:
            request.armed = True
            feed.drop_waiting()
        captured = feed.take()
        if captured is None:
            return None
        self._triggers.served(feed.name)
        return replace(captured, trigger=request.identity)

    def _is_over(self) -> bool:
        if self._triggers is not None and self._triggers.exhausted:
            return True
        return all(feed.ended for feed in self._feeds)

    def _wait(self) -> None:
        with self.changed:
            self.changed.wait_for(self._is_wanted, _WAIT_SECONDS)

    def _is_wanted(self) -> bool:
        """Whether there is something to do; asked with `changed` held."""
        triggers = self._triggers
        if triggers is None:
            return any(feed.ready for feed in self._feeds)
        return any(feed.ready and triggers.next(feed.name) for feed in self._feeds)

    def _handle(self, waiting: list[tuple[Feed, CapturedFrame]]) -> None:
        scorer = self.scorer
        if self._batching and len(waiting) > 1 and isinstance(scorer, Scorer):
            try:
                results = score_together(scorer, [captured for _, captured in waiting])
            except DataError:
                pass  # one of them; the others shall not suffer
            else:
                for (_, captured), result in zip(waiting, results, strict=True):
                    self._put(captured, result)
                return
        for feed, captured in waiting:
            try:
                result = score_one(scorer, captured)
            except DataError as error:
                self._fail(feed, error, captured)
            else:
                self._put(captured, result)

    def _put(self, captured: CapturedFrame, result: Result) -> None:
        self.tally.add(result)
        self.last_frame = captured.frame
        self._delivery.verdict(captured, result)
        for monitor in self._monitors[captured.camera]:
            event = monitor.update(captured, result)
            if event is not None:
                self._delivery.event(event)

    def _fail(self, feed: Feed, error: DataError, captured: CapturedFrame | None = None) -> None:
        self.tally.failed += 1
        feed.fail(error, number=None if captured is None else captured.number)
        if self._triggers is not None and captured is not None and captured.trigger is not None:
            self._triggers.fail(captured.trigger, feed.name, str(error))
