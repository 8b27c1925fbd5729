"""Pictures for people: the part, its heat map as a layer to lay over it, and a small overlay."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.overlay import color_range, encode_jpeg, heat_map, lay_heat
from edge_ad_runtime.model.result import Result

_LAYER_SIDE = 320
"""Of the heat map and of the small picture; a heat map is smooth."""

_QUALITY = 80
_STRONGEST = 0.85
"""Cover of the hottest pixel at full strength; the page shows less of it by default."""

_MOST_OUTLINES = 40
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
    """Return the frame with sides of at most so many pixels.

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
