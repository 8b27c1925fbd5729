"""Where a part is anomalous: the connected areas of its anomaly map above the map's limit."""

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.image import Preprocessing

MOST_REGIONS = 50
"""Regions that are told of a part, those with the highest peaks: a message has to end somewhere."""


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
