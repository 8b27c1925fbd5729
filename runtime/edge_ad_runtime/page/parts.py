"""The parts that the page can still show, and the one thread that draws them for all viewers."""

import asyncio
import logging
import os
import secrets
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice
from time import monotonic, thread_time
from weakref import WeakValueDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.overlay import color_range, encode_jpeg, heat_map, lay_heat
from edge_ad_runtime.model.result import Result, iso_time
from edge_ad_runtime.outputs.base import verdict_fields

logger = logging.getLogger(__name__)

_LAYER_SIDE = 320
"""Of the heat map and of the small picture; a heat map is smooth."""

_QUALITY = 80
_STRONGEST = 0.85
"""Cover of the hottest pixel at full strength; the page shows less of it by default."""

_MOST_OUTLINES = 40

_MOST_WAITING = 4
_KEEP_SECONDS = 0.3
_NICENESS = 10

Outline = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a page shows of one part.

    Attributes:
        plain: the frame as JPEG, not larger than was asked for.
        heat: the heat map as PNG, transparent where all is normal; smaller, of the same shape.
        small: a JPEG for the list of anomalous parts, with heat and outlines drawn in.
        outlines: polygons around what reaches the map's limit, (x, y) in 0..1 of width and height;
            none for a good part.
    """

    plain: bytes
    heat: bytes
    small: bytes
    outlines: list[Outline]


def draw(frame: Frame, result: Result, info: ModelInfo, side: int) -> Pictures:
    """Make the pictures of a part.

    Args:
        frame: uint8, H x W x 3, BGR.
        result: the verdict on it; only an anomalous part gets outlines.
        info: geometry and range of colours of the model that gave the verdict.
        side: longest side of the plain picture, in pixels.
    """
    plain = _shrunk(frame, side)
    base = _shrunk(plain, _LAYER_SIDE)
    values = info.preprocessing.map_to_frame(result.anomaly_map, base.shape[:2])
    low, limit = info.map_range[0], info.map_threshold
    small = lay_heat(base, values, low, limit, outline=result.anomalous)
    return Pictures(
        plain=encode_jpeg(plain, quality=_QUALITY),
        heat=_png(_layer(values, low, limit)),
        small=encode_jpeg(small, quality=_QUALITY),
        outlines=_outlines(values >= limit) if result.anomalous else [],
    )


def _layer(values: NDArray[np.float32], low: float, limit: float) -> NDArray[np.uint8]:
    """Return the heat map (H, W) as a layer: uint8 (H, W, 4), BGR and cover.

    What every good part shows stays clear, so that the picture remains visible below.
    """
    _, high = color_range(low, limit)
    middle = np.float32((low + limit) / 2)
    cover = np.clip((values - middle) / np.float32(high - middle), 0, _STRONGEST)
    return np.dstack([heat_map(values, low, high), (255 * cover).astype(np.uint8)])


def _outlines(hot: NDArray[np.bool_]) -> list[Outline]:
    """Return polygons around the regions, the largest ones where there are very many."""
    found, _ = cv2.findContours(hot.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    height, width = hot.shape
    outlines = []
    for contour in sorted(found, key=len, reverse=True)[:_MOST_OUTLINES]:
        # The points are pixels' middles.
        points = (contour[:, 0, :] + 0.5) / (width, height)
        outlines.append([(round(float(x), 4), round(float(y), 4)) for x, y in points])
    return outlines


def _shrunk(frame: Frame, side: int) -> Frame:
    """Return the frame with sides of at most this many pixels.

    It is divided by a whole number, which is much quicker than any other scale.
    """
    height, width = frame.shape[:2]
    factor = -(-max(height, width) // side)
    if factor == 1:
        return frame
    size = (max(1, width // factor), max(1, height // factor))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _png(layer: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", layer, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


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
        verdict: the fields of the verdict in JSON, as in every output.
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
        """Return the fields of the part in the page's messages."""
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


class Drawing:
    """Draws each part at most once, however many look at it, and nothing that nobody wants.

    It has one thread, which gives way to the inspection.

    Attributes:
        cpu_seconds: what drawing has cost so far.
    """

    def __init__(self, side: int) -> None:
        """Make pictures with sides of at most this many pixels."""
        self.cpu_seconds = 0.0
        self._side = side
        self._kept_at = -_KEEP_SECONDS
        self._waiting = threading.Semaphore(_MOST_WAITING)
        self._pool = ThreadPoolExecutor(1, "edge-ad page pictures", initializer=_step_back)

    async def pictures(self, part: Part) -> Pictures | None:
        """Return the pictures of a part; None: it is too late."""
        if part.pictures is not None:
            return part.pictures
        try:
            drawn = asyncio.get_running_loop().run_in_executor(self._pool, self._draw, part)
        except RuntimeError:
            return None  # the page is closing
        return await drawn

    def keep(self, part: Part) -> None:
        """Draw an anomalous part soon, so that it can be listed, also when its frame has gone.

        Of many in a short time only some are drawn: no verdict depends on it.
        """
        if not part.result.anomalous or monotonic() - self._kept_at < _KEEP_SECONDS:
            return
        if not self._waiting.acquire(blocking=False):
            return
        self._kept_at = monotonic()
        try:
            self._pool.submit(self._draw, part).add_done_callback(self._kept)
        except RuntimeError:
            self._waiting.release()  # the page is closing

    def close(self) -> None:
        """Draw nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _draw(self, part: Part) -> Pictures | None:
        started = thread_time()
        pictures = part.draw(self._side)
        self.cpu_seconds += thread_time() - started
        return pictures

    def _kept(self, done: "Future[Pictures | None]") -> None:
        self._waiting.release()
        if not done.cancelled() and done.exception() is not None:
            logger.error("a part cannot be drawn", exc_info=done.exception())


def _step_back() -> None:
    """Let every other thread go first; only Linux knows priorities of single threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
