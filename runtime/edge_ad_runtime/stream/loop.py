"""The loop: newest frames in, verdicts out, for the cameras that share a model."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame, FrameSource
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.cameras.feed import Feed, Recovery
from edge_ad_runtime.errors import CameraError, DataError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs import Delivery
from edge_ad_runtime.stream.triggers import Triggers, take_on_demand
from edge_ad_runtime.stream.watchers import Monitor
from edge_ad_runtime.supervisor import Supervisor

_CLOSE_SECONDS = 1.0
_WAIT_SECONDS = 0.2
"""How soon the loop notices a stop or a stall while no frame comes."""


_KEPT_LATENCIES = 10_000
"""Percentiles are over so many last frames: a stream of months needs no more memory."""


class Model(Protocol):
    """What a loop scores with: a `ModelSlot`, or a stand-in for one."""

    @property
    def prepare(self) -> Callable[[Frame], Prepared] | None:
        """What the readers of files do ahead; None: they hand over whole frames."""

    def score(self, batch: Sequence[CapturedFrame]) -> list[Result]:
        """Score frames in one inference.

        Raises:
            DataError: one of them cannot be scored.
            DeviceError: the device failed.
        """

    def gains_by_batching(self, size: int) -> bool:
        """Whether this many frames are scored sooner together than one after the other."""


@dataclass(kw_only=True)
class Tally:
    """Counts of one loop while it runs."""

    frames: int = 0
    anomalous: int = 0
    failed: int = 0
    skipped: int = 0
    camera_error: CameraError | None = None
    output_closed: bool = False
    started: float = field(default_factory=perf_counter)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT_LATENCIES))

    @property
    def handled(self) -> int:
        """How many frames have been dealt with."""
        return self.frames + self.failed

    def add(self, result: Result) -> None:
        """Count a verdict."""
        self.frames += 1
        self.anomalous += result.anomalous
        self.latencies.append(result.latency_ms)


class Loop:
    """One model and its cameras.

    Each round takes at most one frame of each camera, the newest, and never waits for a second one:
    frames that happen to be there together are scored together where that is quicker.

    Attributes:
        tally: counts.
        rounds: how many rounds and waits are behind it; of a loop that hangs it stands still.
    """

    def __init__(
        self,
        model: Model,
        delivery: Delivery,
        triggers: Triggers | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Start without cameras.

        Args:
            model: scores the frames.
            delivery: takes verdicts and events.
            triggers: frames are scored on demand only; None: as they come.
            supervisor: starts the threads that read the cameras.
        """
        self.tally = Tally()
        self.rounds = 0
        self._model = model
        self._delivery = delivery
        self._triggers = triggers
        self._supervisor = supervisor or Supervisor(delivery.event)
        self._changed = threading.Condition()
        self._feeds: list[Feed] = []
        self._given_up: set[Feed] = set()
        self._monitors: dict[str, list[Monitor]] = {}
        self._batching = False
        if triggers is not None:
            triggers.listen(self._changed)

    def add_camera(
        self,
        name: str,
        source: FrameSource | None,
        *,
        reopen: Callable[[], FrameSource] | None = None,
        recovery: Recovery = Recovery(),  # noqa: B008  (frozen)
        every: int = 1,
    ) -> Feed:
        """Start to read a camera, whose frames this loop scores; it closes the source at its end.

        Args:
            name: of the camera, in results and events.
            source: already open; None: it is lost from the start, and `reopen` is tried.
            reopen: opens it again; None: a lost camera is the end of it.
            recovery: timeouts and delays.
            every: score only every N-th frame.
        """
        feed = Feed(
            name,
            source,
            reopen=reopen,
            recovery=recovery,
            every=every,
            report=self._delivery.event,
            prepare=self._model.prepare,
            changed=self._changed,
            supervisor=self._supervisor,
        )
        self._feeds.append(feed)
        self._monitors[name] = []
        if len(self._feeds) > 1:
            self._batching = self._model.gains_by_batching(len(self._feeds))
        return feed

    def add_monitor(self, camera: str, monitor: Monitor) -> None:
        """Let a monitor see each verdict of a camera."""
        self._monitors[camera].append(monitor)

    def run(self, stop: threading.Event, *, max_frames: int | None = None) -> None:
        """Score until all sources have ended or `stop` is set, and close the sources.

        Args:
            stop: ends the loop after the current frame.
            max_frames: end after this many frames, failed ones included.

        Raises:
            DeviceError: the device can no longer run the model.
        """
        try:
            while not stop.is_set() and (max_frames is None or self.tally.handled < max_frames):
                waiting = self._take_all()
                if waiting:
                    left = None if max_frames is None else max_frames - self.tally.handled
                    self._score(waiting[:left])
                elif self._is_over():
                    break
                else:
                    self._wait()
                self.rounds += 1
        except BrokenPipeError:
            self.tally.output_closed = True
        finally:
            self._close()

    def _close(self) -> None:
        if self._triggers is not None:
            for feed in self._feeds:
                self._triggers.close(feed.name, "the stream ended")
        # All at once: drivers that hang are waited for together, not one after the other.
        for feed in self._feeds:
            feed.close(wait=0)
        deadline = monotonic() + _CLOSE_SECONDS
        for feed in self._feeds:
            feed.close(wait=max(0.0, deadline - monotonic()))
        self.tally.skipped = sum(feed.skipped for feed in self._feeds)

    def _take_all(self) -> list[tuple[Feed, CapturedFrame]]:
        """Return what is there of each camera, at most one frame, without waiting."""
        found = []
        for feed in self._feeds:
            if feed in self._given_up:
                continue
            try:
                feed.watch()
                captured = self._take(feed)
            except DataError as error:
                self._fail(feed, error)
            except CameraError as error:
                self._give_up(feed, error)
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
        return feed.take() if self._triggers is None else take_on_demand(self._triggers, feed)

    def _give_up(self, feed: Feed, error: CameraError) -> None:
        """Go on without a camera that cannot be opened again; the others are not affected."""
        self._given_up.add(feed)
        self.tally.camera_error = self.tally.camera_error or error
        self._delivery.event(Event(kind="camera lost", message=str(error), camera=feed.name))
        if self._triggers is not None:
            self._triggers.close(feed.name, str(error))

    def _is_over(self) -> bool:
        if self._triggers is not None and self._triggers.exhausted:
            return True
        return all(feed in self._given_up or feed.ended for feed in self._feeds)

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(self._has_work, _WAIT_SECONDS)

    def _has_work(self) -> bool:
        """Whether a round would do something; asked with `_changed` held, and changes nothing."""
        return self._is_over() or any(
            feed.ready and (self._triggers is None or self._triggers.peek(feed.name) is not None)
            for feed in self._feeds
            if feed not in self._given_up
        )

    def _score(self, waiting: list[tuple[Feed, CapturedFrame]]) -> None:
        batches = [waiting] if self._batching else [[item] for item in waiting]
        while batches:
            batch = batches.pop(0)
            try:
                batch = [(feed, self._prepared(captured)) for feed, captured in batch]
                results = self._model.score([captured for _, captured in batch])
            except DataError as error:
                if len(batch) > 1:  # one of them failed; the others are not affected
                    batches = [[item] for item in batch]
                else:
                    self._fail(batch[0][0], error, batch[0][1])
            else:
                for (_, captured), result in zip(batch, results, strict=True):
                    self._put(captured, result)

    def _prepared(self, captured: CapturedFrame) -> CapturedFrame:
        """Prepare the frame of a camera here: its reader cannot know which ones are looked at.

        Raises:
            DataError: it is not a frame.
        """
        prepare = self._model.prepare
        if captured.prepared is not None or prepare is None:
            return captured
        return replace(captured, prepared=prepare(captured.frame))

    def _put(self, captured: CapturedFrame, result: Result) -> None:
        self.tally.add(result)
        if self._triggers is not None:
            self._triggers.served(captured.camera)
        self._delivery.verdict(captured, result)
        for monitor in self._monitors[captured.camera]:
            event = monitor.update(captured, result)
            if event is not None:
                self._delivery.event(event)

    def _fail(self, feed: Feed, error: DataError, captured: CapturedFrame | None = None) -> None:
        self.tally.failed += 1
        feed.fail(error, number=None if captured is None else captured.number)
        if self._triggers is not None and captured is not None:
            self._triggers.failed(feed.name, str(error))
