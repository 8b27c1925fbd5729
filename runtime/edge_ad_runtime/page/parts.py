"""The parts that the page can still show: the last ones of each camera, and the last anomalous."""

import secrets
import threading
from collections import deque
from dataclasses import dataclass, replace
from itertools import count, islice
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import iso_time
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.outputs.base import verdict_fields
from edge_ad_runtime.page.pictures import Pictures, draw

_RECENT = 40
"""Parts of each camera."""

_ANOMALOUS = 120
"""More than a page lists: it asks for a picture a moment after the part was listed."""

_MOST_RAW = 200
_RAW_BYTES = 96_000_000
"""Frames as they were captured, of all cameras together; they are large."""

_NO_FRAME: Frame = np.zeros((0, 0, 3), np.uint8)
_NO_MAP: NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(kw_only=True, eq=False)
class Part:
    """One frame and its verdict, for as long as the page may be asked for it.

    Attributes:
        id: names this part and no other one, also after a restart.
        captured: number, camera and time of the frame, without its pixels.
        result: the verdict on this frame, without its map.
        verdict: the verdict as it stands in JSON, in every output alike.
        info: what the model that gave the verdict says about itself.
        raw: the frame and the verdict in full; None: they had to make room for newer ones.
        pictures: for people; None: nobody has looked yet.
    """

    id: str
    captured: CapturedFrame
    result: Result
    verdict: dict[str, object]
    info: ModelInfo
    raw: tuple[CapturedFrame, Result] | None
    pictures: Pictures | None = None

    def fields(self) -> dict[str, object]:
        """Return the part as it stands in the page's messages."""
        return {"id": self.id, **self.verdict}

    def point(self) -> dict[str, object]:
        """Return the part as a point of the chart."""
        return {
            "id": self.id,
            "time": iso_time(self.captured.timestamp),
            "score": self.result.score,
            "threshold": self.result.threshold,
            "anomalous": self.result.anomalous,
        }

    def draw(self, side: int) -> Pictures | None:
        """Make the pictures unless they are there; None: it is too late."""
        raw = self.raw
        if self.pictures is None and raw is not None:
            captured, result = raw
            self.pictures = draw(captured.frame, result, self.info, side)
        return self.pictures


class Parts:
    """What is kept in memory, within a limit however large the frames are."""

    def __init__(self, cameras: list[str], *, raw_bytes: int = _RAW_BYTES) -> None:
        """Start with nothing seen of these cameras; `raw_bytes` limits the frames that are kept."""
        # A page that was open before a restart must not get a new part under an old one's name.
        self._run = secrets.token_hex(4)
        self._numbers = count(1)
        self._recent: dict[str, deque[Part]] = {name: deque(maxlen=_RECENT) for name in cameras}
        self._anomalous: deque[Part] = deque(maxlen=_ANOMALOUS)
        self._by_id: WeakValueDictionary[str, Part] = WeakValueDictionary()
        self._whole: deque[Part] = deque()
        self._raw_bytes, self._most_raw_bytes = 0, raw_bytes
        self._lock = threading.Lock()

    def add(self, captured: CapturedFrame, result: Result, info: ModelInfo) -> Part:
        """Keep a part, and let the oldest pixels go."""
        part = Part(
            id=f"{self._run}-{next(self._numbers)}",
            captured=replace(captured, frame=_NO_FRAME, prepared=None),
            result=replace(result, anomaly_map=_NO_MAP, finder=None),
            verdict=verdict_fields(captured, result, captured.camera),
            info=info,
            raw=(captured, result),
        )
        with self._lock:
            self._by_id[part.id] = part
            self._recent[captured.camera].append(part)
            if result.anomalous:
                self._anomalous.append(part)
            self._whole.append(part)
            self._raw_bytes += captured.frame.nbytes
            self._shrink()
        return part

    def get(self, identity: str) -> Part | None:
        """Return a part by its name, if it is still kept."""
        with self._lock:
            return self._by_id.get(identity)

    def newest(self, camera: str) -> Part | None:
        """Return the newest part of a camera; None: there was none yet."""
        with self._lock:
            recent = self._recent[camera]
            return recent[-1] if recent else None

    def anomalous(self, most: int) -> list[Part]:
        """Return the last anomalous parts that have been drawn, newest first.

        Where parts come faster than they are drawn the others are left out, so that a list of them
        asks for nothing that costs time.
        """
        with self._lock:
            drawn = (part for part in reversed(self._anomalous) if part.pictures is not None)
            return list(islice(drawn, most))

    def _shrink(self) -> None:
        """Let go of the oldest pixels, but never of the newest ones of a camera."""
        for _ in range(len(self._whole)):
            if self._raw_bytes <= self._most_raw_bytes and len(self._whole) <= _MOST_RAW:
                return
            part = self._whole.popleft()
            if part is self._recent[part.captured.camera][-1]:
                self._whole.append(part)
            elif part.raw is not None:
                self._raw_bytes -= part.raw[0].frame.nbytes
                part.raw = None
