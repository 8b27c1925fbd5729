"""Collect pictures for training at a camera: different ones, sharp, well exposed, whole files."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import cv2
import numpy as np

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.feed import Feed
from edge_ad_runtime.errors import CameraError, DataError, counted
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.image import Appearance, appearance
from edge_ad_runtime.model.result import time_in_names
from edge_ad_runtime.stream.triggers import Triggers, take_on_demand

_WAIT_SECONDS = 0.2
_STANDING_SECONDS = 30.0

_LEAST_LOG_SHARPNESS = 3.0
"""Real parts in focus lie above 4."""

_BLURRED = 1.0
"""A picture is blurred if its `log_sharpness` is so far below the middle of the others."""

_CLIPPED_SHARE = 0.2
"""Of pixels that are black or white, beyond that of the others."""

_FAR = 112.0
"""Mean grey levels above that of the others, or above the middle of all; 240 is nearly white."""

_FAINT = 4.0
"""How many times darker than the others; 32 of 255 without others."""

_ENOUGH = 5
"""From so many pictures on a new one is compared with them, not with what is usual anywhere."""


@dataclass(kw_only=True)
class Collection:
    """What was collected.

    Attributes:
        paths: of the pictures, in order.
        looks: how each of them looks.
        doubts: what may be wrong with a picture, by its path.
        alike: frames that were passed over, since they showed the scene of the picture before.
        failed: frames that could not be read.
        complaint: why the collection ended early; empty: it did not.
    """

    paths: list[Path] = field(default_factory=list)
    looks: list[Appearance] = field(default_factory=list)
    doubts: dict[Path, list[str]] = field(default_factory=dict)
    alike: int = 0
    failed: int = 0
    complaint: str = ""

    @property
    def differences(self) -> list[float]:
        """Grey levels by which each picture differs from the one before it."""
        pairs = zip(self.looks, self.looks[1:], strict=False)
        return [before.difference(after) for before, after in pairs]


def collect(
    feed: Feed,
    folder: Path,
    collection: Collection,
    *,
    changed: threading.Condition,
    every: float = 0.0,
    triggers: Triggers | None = None,
    stop: threading.Event | None = None,
    count: int | None = None,
    keep_alike: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = monotonic,
) -> None:
    """Write pictures until there are enough, or the source ends; closes the feed.

    A picture that shows the same static scene as the one before it is passed over.

    Args:
        feed: the camera.
        folder: there already; gets lossless PNG files, each of them whole.
        collection: is filled; whoever interrupts this function still has it.
        changed: the condition of the feed, which is also notified at each trigger.
        every: seconds between two pictures.
        triggers: take one picture for each of these, of the camera with the feed's name; None:
            nobody has to ask.
        stop: set it from another thread to end.
        count: how many pictures; None: as many as there are.
        keep_alike: take pictures that look alike as well.
        tell: takes one sentence about each picture that is doubtful or passed over on demand.
        clock: monotonic, in seconds.

    Raises:
        DataError: a picture cannot be written; those before it are there.
    """
    collector = _Collector(
        feed,
        folder,
        collection,
        changed,
        every=every,
        triggers=triggers,
        keep_alike=keep_alike,
        tell=tell,
        clock=clock,
    )
    try:
        collector.run(stop or threading.Event(), count)
    finally:
        feed.close()
        if triggers is not None:
            triggers.close(feed.name, "the collection has ended")


class _Collector:
    """One run of `collect`, whose arguments it has."""

    def __init__(
        self,
        feed: Feed,
        folder: Path,
        collection: Collection,
        changed: threading.Condition,
        *,
        every: float,
        triggers: Triggers | None,
        keep_alike: bool,
        tell: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._folder = folder
        self._collection = collection
        self._changed = changed
        self._every = every
        self._triggers = triggers
        self._keep_alike = keep_alike
        self._tell = tell
        self._clock = clock
        self._due_at = self._kept_at = self._told_at = clock()
        if triggers is not None:
            triggers.listen(changed)

    def run(self, stop: threading.Event, count: int | None) -> None:
        while not stop.is_set() and (count is None or len(self._collection.paths) < count):
            if self._triggers is not None and self._triggers.exhausted:
                return
            self._feed.watch()
            try:
                captured = self._take()
            except CameraError as error:
                self._collection.complaint = str(error)
                return
            except DataError as error:
                self._collection.failed += 1
                self._feed.fail(error)
                continue
            if captured is not None:
                self._look_at(captured)
            elif self._feed.ended:
                self._collection.complaint = "the source has no more pictures" if count else ""
                return
            else:
                self._wait()

    def _take(self) -> CapturedFrame | None:
        """Return the next frame, if one is wanted now.

        Raises:
            CameraError, DataError: as `Feed.take`.
        """
        if self._triggers is not None:
            return take_on_demand(self._triggers, self._feed)
        return self._feed.take() if self._clock() >= self._due_at else None

    def _look_at(self, captured: CapturedFrame) -> None:
        """Keep a frame, or pass it over because it shows the scene of the last picture."""
        look = appearance(captured.frame)
        looks = self._collection.looks
        kept = self._keep_alike or not looks or not look.shows_scene_of(looks[-1])
        if kept:
            _keep(captured, look, self._folder, self._collection, self._tell)
            self._kept_at = self._told_at = self._clock()
        else:
            self._pass_over()
        if self._triggers is not None:
            self._triggers.served(self._feed.name)
        elif kept:
            self._due_at = self._clock() + self._every

    def _pass_over(self) -> None:
        self._collection.alike += 1
        if self._triggers is not None:
            self._tell("not kept: it shows the same static scene as the picture before it")
        elif self._clock() - self._told_at > _STANDING_SECONDS:
            self._told_at = self._clock()
            self._tell(f"the scene has stood still for {self._clock() - self._kept_at:.0f} s")

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(self._has_work, _WAIT_SECONDS)

    def _has_work(self) -> bool:
        """Whether a round would do something; asked with `_changed` held, and changes nothing."""
        if self._triggers is None:
            return self._feed.ready and self._clock() >= self._due_at
        wanted = self._triggers.peek(self._feed.name) is not None
        return self._triggers.exhausted or (wanted and self._feed.ready)


class Usual(NamedTuple):
    """The medians of how pictures look."""

    log_sharpness: float
    bright_share: float
    dark_share: float
    brightness: float


def usual_of(looks: Sequence[Appearance]) -> Usual | None:
    """Return what is usual among pictures; None: they are too few to say."""
    if len(looks) < _ENOUGH:
        return None
    rows = [(one.log_sharpness, one.bright_share, one.dark_share, one.brightness) for one in looks]
    return Usual(*np.median(rows, axis=0).tolist())


def doubts_of(look: Appearance, usual: Usual | None) -> list[str]:
    """Return what may be wrong with a picture's focus and exposure.

    Among enough others it is compared with them: a white background is mentioned only a few times.

    Args:
        look: the picture.
        usual: among the pictures beside it.
    """
    white, black, brightness = usual[1:] if usual else (0.0, 0.0, 128.0)
    found = []
    if look.bright_share > white + _CLIPPED_SHARE or look.brightness > brightness + _FAR:
        found.append(
            f"over-exposed: {look.bright_share:.0%} of it is white, where no defect can be seen, "
            f"mean grey level {look.brightness:.0f} of 255"
        )
    if look.dark_share > black + _CLIPPED_SHARE or look.brightness < brightness / _FAINT:
        found.append(
            f"under-exposed: {look.dark_share:.0%} of it is black, mean grey level "
            f"{look.brightness:.0f} of 255"
        )
    if found:
        return found  # edges are faint in such a picture, whatever the focus
    if usual and look.log_sharpness < usual.log_sharpness - _BLURRED:
        found.append("blurred: much less sharp than the others, check focus and exposure time")
    elif not usual and look.log_sharpness < _LEAST_LOG_SHARPNESS:
        found.append("blurred: there is hardly an edge in it, check the focus")
    return found


def _keep(
    captured: CapturedFrame,
    look: Appearance,
    folder: Path,
    collection: Collection,
    tell: Callable[[str], None],
) -> None:
    path = folder / f"{time_in_names(captured.timestamp)}-{captured.number:06d}.png"
    # The lowest compression: ten times as quick as the usual one, a fifth larger.
    written, data = cv2.imencode(".png", captured.frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not written:
        raise DataError(f"cannot encode a frame of {captured.frame.shape} as PNG")
    # Counted before it is written: Ctrl-C at any moment leaves no picture that is not counted.
    collection.paths.append(path)
    try:
        write_whole(path, data.tobytes(), replace=False)
    except OSError as error:
        collection.paths.pop()
        raise DataError(
            f"cannot write the picture {path}: {error.strerror or error}: "
            f"free some space ({counted(len(collection.paths), 'picture')} kept)"
        ) from error
    found = doubts_of(look, usual_of(collection.looks))
    collection.looks.append(look)
    if found:
        collection.doubts[path] = found
        for text in found:
            tell(f"{path.name} may be {text}")
