"""Watch the verdicts of a camera for what creeps: drift of the scores, too many skipped frames."""

from collections import deque
from collections.abc import Callable
from statistics import median
from time import monotonic
from typing import Protocol

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result

_EVERY = 50
"""Medians are taken every so many frames, not at each."""


class Monitor(Protocol):
    """Sees each verdict of one camera."""

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Take a verdict into account; return an event if there is something to tell."""


class Drift:
    """Good parts that no longer score as the good parts of the training did.

    The median of the last good verdicts is compared with the range of scores that the model file
    states for good pictures. Above its upper quarter the scene has changed (light, focus, dirt) and
    false alarms are near; below the range the camera may not see the part at all.
    """

    def __init__(self, info: Callable[[], ModelInfo], *, window: int = 500) -> None:
        """Start without frames.

        Args:
            info: gives the model in use.
            window: how many good verdicts the median is over.
        """
        self._info = info
        self._scores: deque[float] = deque(maxlen=window)
        self._count = 0
        self._drifted = False

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Return an event when the median leaves the range."""
        if result.anomalous:
            return None
        self._scores.append(result.score)
        self._count += 1
        if self._count % _EVERY or len(self._scores) < (self._scores.maxlen or 0):
            return None
        low, high = self._info().score_range
        middle = median(self._scores)
        drifted = not low <= middle <= low + 0.75 * (high - low)
        news = drifted and not self._drifted
        self._drifted = drifted
        if not news:
            return None
        return Event(
            kind="drift",
            message=(
                f"the good parts at {captured.camera} now score {middle:.4g} in the middle, those "
                f"of the training {low:.4g} to {high:.4g}: check light, focus and position"
            ),
            camera=captured.camera,
            details={"median_score": middle, "expected": [low, high]},
        )


class Overload:
    """More frames skipped than scored, for a while."""

    def __init__(
        self,
        skipped: Callable[[], int],
        *,
        seconds: float = 30.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start to count.

        Args:
            skipped: gives how many frames of the camera have been skipped so far.
            seconds: how long a while is.
            clock: monotonic, in seconds.
        """
        self._skipped = skipped
        self._seconds = seconds
        self._clock = clock
        self._since = clock()
        self._skipped_before = skipped()
        self._scored = 0
        self._overloaded = False

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Return an event at the end of the first such while."""
        self._scored += 1
        if self._clock() - self._since < self._seconds:
            return None
        skipped = self._skipped()
        missed, scored = skipped - self._skipped_before, self._scored
        self._since, self._skipped_before, self._scored = self._clock(), skipped, 0
        news = missed > scored and not self._overloaded
        self._overloaded = missed > scored
        if not news:
            return None
        return Event(
            kind="overload",
            message=(
                f"the camera {captured.camera} delivers more than this device scores: {missed} "
                f"frames skipped, {scored} scored in {self._seconds:g} s: lower its frame rate, "
                "or take a quicker device or model"
            ),
            camera=captured.camera,
            details={"skipped": missed, "scored": scored},
        )
