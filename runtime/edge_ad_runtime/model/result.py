"""The verdict for one frame."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.events import iso_time
from edge_ad_runtime.model.regions import Region, RegionFinder


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
    anomaly_map: NDArray[np.float32]
    latency_ms: float
    p_value: float | None = None
    frame_size: tuple[int, int] | None = None
    finder: RegionFinder | None = field(default=None, repr=False)

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

    def fields(self, timestamp: datetime) -> dict[str, object]:
        """Return what goes into JSON, with the time of capture as ISO 8601 in UTC."""
        return {
            "timestamp": iso_time(timestamp),
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "p_value": self.p_value,
            "regions": [region.fields() for region in self.regions],
            "latency_ms": round(self.latency_ms, 3),
        }


def false_alarms_in_words(p_value: float) -> str:
    """Say a p-value to people: how many of 1,000 good parts would score like this."""
    expected = 1000 * p_value
    count = f"{expected:.0f}" if expected >= 9.95 else f"{expected:.2g}"
    if expected < 0.01:
        count = "fewer than 0.01"
    return f"expected false alarms in 1,000 good parts: {count}"
