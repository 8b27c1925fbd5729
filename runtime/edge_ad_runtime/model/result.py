"""The verdict for one frame."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.events import iso_time


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What the model says about one frame.

    Attributes:
        score: larger is more anomalous, in the unit of the method's distance.
        anomalous: whether `score >= threshold`.
        threshold: the decision limit that was applied.
        anomaly_map: float32 (h, w), same unit as score, in the geometry of the model's input.
        latency_ms: resize and inference; in a batch the batch's time divided by its size.
    """

    score: float
    anomalous: bool
    threshold: float
    anomaly_map: NDArray[np.float32]
    latency_ms: float

    def fields(self, timestamp: datetime) -> dict[str, object]:
        """Return what goes into JSON, with the time of capture as ISO 8601 in UTC."""
        return {
            "timestamp": iso_time(timestamp),
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "latency_ms": round(self.latency_ms, 3),
        }
