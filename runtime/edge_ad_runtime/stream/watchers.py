"""Watch the verdicts of a camera: alarms, too many skipped frames, and a model that is tried."""

import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.config_table import check_settings, setting
from edge_ad_runtime.errors import ConfigError, ModelFileError, counted
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.result import Result

if TYPE_CHECKING:
    from edge_ad_runtime.model.scorer import Scorer

_LOOK_SECONDS = 0.5
"""How soon a trial notices that nobody waits for its outcome any more."""


class Monitor(Protocol):
    """Sees each verdict of one camera."""

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Take a verdict into account; return an event if there is something to tell."""


@dataclass(frozen=True, kw_only=True)
class AlarmRule:
    """When an alarm goes on and off.

    Attributes:
        frames: how many anomalous frames...
        window: ...among this many of the latest ones raise it; 0: as many as `frames`.
        clear_frames: how many calm frames in a row clear it.
        clear_ratio: a frame is calm below this share of the threshold, 0..1; under 1 an alarm does
            not flicker where the score lies near the threshold.
        min_area: share of the picture, 0..1, that the largest region of an anomalous frame must
            cover to count.
    """

    frames: int = setting(1, low=1, high=100_000)
    window: int = setting(0, low=1, high=100_000)
    clear_frames: int = setting(1, low=1, high=1_000_000)
    clear_ratio: float = setting(1.0, low=0.001, high=1)
    min_area: float = setting(0.0, low=0, high=0.999)

    def __post_init__(self) -> None:
        """Refuse rules that can never hold.

        Raises:
            ConfigError: a value is out of range, or the values do not fit together.
        """
        object.__setattr__(self, "window", self.window or self.frames)
        check_settings(self)
        if self.frames > self.window:
            raise ConfigError(
                f"expected an alarm of M out of N frames with M <= N, got {self.frames} out of "
                f"{self.window}"
            )


class Alarm:
    """The alarm of one camera.

    Attributes:
        on: whether it is raised.
    """

    def __init__(self, rule: AlarmRule, map_threshold: Callable[[], float]) -> None:
        """Start cleared.

        Args:
            rule: when it goes on and off.
            map_threshold: gives the map value from which a pixel belongs to a region.
        """
        self.on = False
        self._rule = rule
        self._map_threshold = map_threshold
        self._last: deque[bool] = deque(maxlen=rule.window)
        self._calm = 0

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Take a verdict into account; return the event if the alarm goes on or off."""
        counts = result.anomalous and self._is_large(result.anomaly_map)
        self._last.append(counts)
        calm = not counts and result.score < self._rule.clear_ratio * result.threshold
        self._calm = self._calm + 1 if calm else 0
        found = sum(self._last)
        if not self.on and found >= self._rule.frames:
            self.on = True
            reason = f"{found} of {counted(len(self._last), 'frame')}"
            return _alarm_event(captured, result, on=True, reason=reason)
        if self.on and self._calm >= self._rule.clear_frames:
            self.on = False
            self._last.clear()
            reason = counted(self._calm, "calm frame")
            return _alarm_event(captured, result, on=False, reason=reason)
        return None

    def _is_large(self, anomaly_map: NDArray[np.float32]) -> bool:
        if self._rule.min_area == 0:
            return True
        threshold = self._map_threshold()
        return largest_region(anomaly_map, threshold) >= self._rule.min_area * anomaly_map.size


def largest_region(anomaly_map: NDArray[np.float32], threshold: float) -> int:
    """Return the pixels of the largest connected region at or above the threshold; 0: none."""
    hot = (anomaly_map >= threshold).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max()) if count > 1 else 0


def _alarm_event(captured: CapturedFrame, result: Result, *, on: bool, reason: str) -> Event:
    state = "on" if on else "off"
    return Event(
        kind="alarm on" if on else "alarm off",
        message=f"alarm {state} at frame {captured.number} of {captured.camera}: {reason}",
        camera=captured.camera,
        timestamp=captured.timestamp,
        details={"frame": captured.number, "score": result.score},
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
            seconds: length of such a period.
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
        """Return an event at the end of the first such period."""
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
                f"the camera {captured.camera} delivers more frames than this device can score: "
                f"{missed} frames skipped, {scored} scored in {self._seconds:g} s: lower its frame "
                "rate, or use a faster device or model"
            ),
            camera=captured.camera,
            details={"skipped": missed, "scored": scored},
        )


class Shadow:
    """Scores parts with a candidate as well, while the verdicts of the running model count.

    It is a monitor of each camera of one model. The candidate works in the thread of the trial and
    takes a part whenever it is idle, so the loop never waits for it.
    """

    def __init__(self) -> None:
        """Start idle."""
        self._parts: queue.Queue[tuple[Frame, Result]] | None = None

    def update(self, captured: CapturedFrame, result: Result) -> None:
        """Offer a part to the candidate, if there is one."""
        parts = self._parts
        if parts is not None:
            with suppress(queue.Full):
                parts.put_nowait((captured.frame, result))

    def run(
        self,
        candidate: "Scorer",
        *,
        parts: int,
        most_changed: float,
        max_latency_ms: float,
        timeout: float,
        given_up: Callable[[], bool],
    ) -> dict[str, float]:
        """Score a number of parts beside the running model.

        Args:
            candidate: at its own limit.
            parts: at least 1.
            most_changed: share of verdicts that may differ, 0..1.
            max_latency_ms: of the median inference of the candidate.
            timeout: seconds until all parts must have come.
            given_up: whether nobody waits for the outcome any more.

        Returns:
            The figures.

        Raises:
            ModelFileError: the candidate failed, changes too many verdicts, or is too slow.
        """
        waiting: queue.Queue[tuple[Frame, Result]] = queue.Queue(maxsize=1)
        self._parts = waiting
        changed = 0
        latencies: list[float] = []
        deadline = monotonic() + timeout
        try:
            while len(latencies) < parts:
                if given_up():
                    raise ModelFileError("the trial was given up before its end")
                if monotonic() > deadline:
                    raise ModelFileError(
                        f"{len(latencies)} of {parts} parts came within {timeout:g} s: raise "
                        "--timeout or lower --shadow"
                    )
                with suppress(queue.Empty):
                    frame, result = waiting.get(timeout=_LOOK_SECONDS)
                    ours = candidate.score(frame)
                    changed += ours.anomalous != result.anomalous
                    latencies.append(ours.latency_ms)
        finally:
            self._parts = None
        if changed > most_changed * parts:
            raise ModelFileError(
                f"{changed} of {parts} verdicts would change, more than the "
                f"{most_changed:.0%} allowed: compare the two models, or raise --max-changed"
            )
        if median(latencies) > max_latency_ms:
            raise ModelFileError(
                f"one inference takes {median(latencies):.0f} ms beside the running model, and may "
                f"take {max_latency_ms:g} ms: export a smaller model, or raise --max-latency"
            )
        return {"parts": parts, "changed": changed, "latency_ms": round(median(latencies), 3)}
