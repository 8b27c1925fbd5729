"""The verdict for one frame, and its regions: where the part is anomalous."""

import math
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.image import Frame, Preprocessing

MOST_REGIONS = 50
"""Regions reported for a part, those with the highest peaks: a message has to end somewhere."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A connected area of a part whose anomaly map reaches the map's limit.

    Attributes:
        x: left edge of its box in the frame, in pixels.
        y: upper edge.
        width: of the box.
        height: of the box.
        area: of the region itself, in pixels of the frame.
        peak: highest value of the anomaly map in it.
        p_value: expected share of good parts whose map reaches this peak anywhere, 0..1; None: the
            model file has no calibration.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    p_value: float | None = None

    def fields(self) -> dict[str, float | None]:
        """Return what goes into JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RegionFinder:
    """What has to be known, besides the anomaly map, to find its regions.

    Attributes:
        map_threshold: map value from which a pixel belongs to a region.
        preprocessing: the geometry between frame and map.
        calibration: of the model, for the p-values.
        min_area: smallest region, as a share of the picture, 0..1.
    """

    map_threshold: float
    preprocessing: Preprocessing
    calibration: Calibration | None = None
    min_area: float = 0.0

    def find(
        self, anomaly_map: NDArray[np.float32], frame_size: tuple[int, int]
    ) -> tuple[Region, ...]:
        """Return the regions of a map (h, w), highest peak first, at most 50.

        Args:
            anomaly_map: float32, in the geometry of the model's input.
            frame_size: (height, width) of the frame in pixels.
        """
        hot = (anomaly_map >= self.map_threshold).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
        smallest = self.min_area * anomaly_map.size
        large = [label for label in range(1, count) if stats[label, cv2.CC_STAT_AREA] >= smallest]
        peaks = np.full(count, -np.inf, dtype=np.float32)
        inside = hot.astype(bool)
        np.maximum.at(peaks, np.asarray(labels[inside], dtype=np.intp), anomaly_map[inside])
        large.sort(key=lambda label: -peaks[label])
        return tuple(
            self._region(stats[label], float(peaks[label]), frame_size)
            for label in large[:MOST_REGIONS]
        )

    def _region(self, stats: NDArray[np.int32], peak: float, frame_size: tuple[int, int]) -> Region:
        left, top, width, height, area = (int(value) for value in stats)
        box = self.preprocessing.box_to_frame((left, top, width, height), frame_size)
        x, y = math.floor(box[0]), math.floor(box[1])
        return Region(
            x=x,
            y=y,
            width=min(math.ceil(box[0] + box[2]), frame_size[1]) - x,
            height=min(math.ceil(box[1] + box[3]), frame_size[0]) - y,
            area=max(1, round(area * (box[2] * box[3]) / (width * height))),
            peak=peak,
            p_value=None if self.calibration is None else self.calibration.map_p_value(peak),
        )


if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What the model says about one frame.

    Attributes:
        score: larger is more anomalous, in the unit of the method's distance.
        anomalous: whether `score >= threshold`.
        threshold: the decision limit that was applied.
        anomaly_map: float32 (h, w), same unit as score, in the geometry of the model's input.
        latency_ms: resize and inference; in a batch the batch's time divided by its size.
        p_value: expected share of good parts that score as high as this one or higher, 0..1; None:
            the model file has no calibration, because an early version wrote it.
        frame_size: (height, width) of the frame in pixels; None: that of the map.
        finder: finds the regions; None: there are none to be found.
    """

    score: float
    anomalous: bool
    threshold: float
    anomaly_map: NDArray[np.float32] = field(repr=False)
    latency_ms: float
    p_value: float | None = None
    frame_size: tuple[int, int] | None = None
    finder: RegionFinder | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        score: float,
        anomaly_map: NDArray[np.float32],
        *,
        threshold: float,
        finder: RegionFinder,
        latency_ms: float = 0.0,
        frame_size: tuple[int, int] | None = None,
    ) -> "Result":
        """Judge a score: the p-value is that of the finder's calibration."""
        calibration = finder.calibration
        return cls(
            score=score,
            anomalous=score >= threshold,
            threshold=threshold,
            anomaly_map=anomaly_map,
            latency_ms=latency_ms,
            p_value=None if calibration is None else calibration.p_value(score),
            frame_size=frame_size,
            finder=finder,
        )

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Where the part is anomalous, highest peak first; a good part has no regions.

        Computed when it is first asked for. Empty as well where the score reaches its limit but the
        map nowhere reaches the map's.
        """
        if self.finder is None or not self.anomalous:
            return ()
        height, width = self.anomaly_map.shape
        return self.finder.find(self.anomaly_map, self.frame_size or (height, width))

    def plot(self, frame: Frame | None = None) -> "Figure":
        """Return a matplotlib figure: the anomaly map, and the frame beside it where one is given.

        A notebook shows it; elsewhere, `result.plot(frame).savefig("part.png")` writes it.

        Args:
            frame: uint8, H x W x 3, BGR, as it was scored.

        Raises:
            MissingExtraError: matplotlib is not installed.
            DataError: the frame is of another kind.
        """
        from edge_ad_runtime.model.overlay import plot

        return plot(self, frame)

    def fields(self, timestamp: datetime | None = None) -> dict[str, object]:
        """Return what goes into JSON; a time of capture, if given, as ISO 8601 in UTC."""
        return {
            **({} if timestamp is None else {"timestamp": iso_time(timestamp)}),
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "p_value": self.p_value,
            "regions": [region.fields() for region in self.regions],
            "latency_ms": round(self.latency_ms, 3),
        }


def iso_time(moment: datetime) -> str:
    """Return a moment as JSON has it: ISO 8601 in UTC, with milliseconds."""
    text = moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def time_in_names(moment: datetime) -> str:
    """Return a moment as names of files have it: in UTC, with microseconds, sorted by time."""
    return f"{moment.astimezone(timezone.utc):%Y%m%dT%H%M%S%f}Z"


def false_alarms_in_words(p_value: float) -> str:
    """Say a p-value to people: how many of 1,000 good parts would score like this."""
    expected = 1000 * p_value
    count = f"{expected:.0f}" if expected >= 9.95 else f"{expected:.2g}"
    if expected < 0.01:
        count = "fewer than 0.01"
    return f"expected false alarms in 1,000 good parts: {count}"
