"""Pictures for the page: small, under their heat map, as JPEG."""

import threading
from collections import OrderedDict
from itertools import islice

import cv2
import numpy as np

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.overlay import lay_heat
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs import Output
from edge_ad_runtime.outputs.pictures import InfoOf

_LIVE_WIDTH, _SMALL_WIDTH = 960, 320
_QUALITY = 80
_LISTED = 24
_KEPT = 5 * _LISTED
"""More than are listed: a page asks for a picture a moment after it was listed."""


def live_picture(
    captured: CapturedFrame, result: Result, info: ModelInfo, *, contrast: float = 1.0
) -> bytes:
    """Return a JPEG of at most 960 pixels in width; a higher contrast shows fainter heat."""
    return _encode(captured.frame, result, info, (_LIVE_WIDTH, contrast))


class Gallery(Output):
    """Keeps the last anomalous frames as small pictures, in memory."""

    name = "gallery of the live page"
    best_effort = True

    def __init__(self, info: InfoOf) -> None:
        """Start empty; `info` gives the model of a camera."""
        self._info = info
        self._kept: OrderedDict[int, tuple[dict[str, object], bytes]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def write(self, captured: CapturedFrame, result: Result) -> None:
        """Keep an anomalous frame."""
        if not result.anomalous:
            return
        data = _encode(captured.frame, result, self._info(captured.camera), (_SMALL_WIDTH, 1.0))
        fields = {
            "camera": captured.camera,
            "frame": captured.number,
            "score": result.score,
            "timestamp": result.fields(captured.timestamp)["timestamp"],
        }
        with self._lock:
            self._count += 1
            self._kept[self._count] = (fields, data)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def entries(self) -> list[dict[str, object]]:
        """Return the newest ones, newest first."""
        with self._lock:
            newest = list(islice(reversed(self._kept), _LISTED))
            return [{"id": number, **self._kept[number][0]} for number in newest]

    def picture(self, number: int) -> bytes | None:
        """Return one JPEG, if it is still kept."""
        with self._lock:
            found = self._kept.get(number)
        return None if found is None else found[1]


def _encode(frame: Frame, result: Result, info: ModelInfo, look: tuple[int, float]) -> bytes:
    width, contrast = look
    scale = min(1.0, width / frame.shape[1])
    if scale < 1:
        size = (width, max(1, round(frame.shape[0] * scale)))
        frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    enlarged = info.preprocessing.map_to_frame(result.anomaly_map, frame.shape[:2])
    low = info.map_range[0]
    limit = low + (info.map_threshold - low) / contrast
    picture = lay_heat(frame, enlarged, low, limit, outline=result.anomalous)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()
