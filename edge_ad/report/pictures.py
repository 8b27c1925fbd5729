"""The pictures of a report: small JPEGs as data addresses."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.evaluate import ScoredSample
from edge_ad.report.report import Report
from edge_ad_runtime.image import Frame, read_frame, read_mask
from edge_ad_runtime.overlay import heat_map

_LONGER_SIDE = 360
"""Pixels; twice what the page shows on a plain screen, so that it stays sharp on a fine one."""

_QUALITY = 85
_OPACITY = 0.6
_HEADROOM = 1.5
"""The map's limit lies at two thirds of the colours, as in the runtime's overlays."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a row; `address` None: there is none, and the caption says why."""

    caption: str
    address: str | None


def make_tiles(report: Report, item: ScoredSample) -> list[Tile]:
    """Return picture, heat map, overlay and mask of one sample.

    Raises:
        DataError: the picture or its mask cannot be read.
    """
    full = read_frame(item.sample.path)
    _, anomaly_map = report.predict(full)
    frame = _shrink(full)
    height, width = frame.shape[:2]
    values = report.preprocessing.map_to_frame(anomaly_map, (height, width))
    low, normal = report.metrics["map_range"][0], report.metrics["map_threshold"]
    high = low + _HEADROOM * max(normal - low, 1e-6)
    colours = heat_map(values, low, high)
    return [
        Tile(caption="picture", address=_address(frame)),
        Tile(caption="heat map", address=_address(colours)),
        Tile(caption="overlay", address=_address(_overlay(frame, colours, values, (normal, high)))),
        _mask_tile(item, (height, width)),
    ]


def _overlay(
    frame: Frame, colours: Frame, values: NDArray[np.float32], limits: tuple[float, float]
) -> Frame:
    """Lay the heat over the frame; outline what reaches the map's limit.

    Args:
        frame: (h, w, 3), BGR.
        colours: the heat map in colours, of the same shape.
        values: the anomaly map, (h, w).
        limits: the map's limit, and the value of the hottest colour.
    """
    normal, high = limits
    # What every good part shows stays clear: the picture remains visible where nothing is wrong.
    heat = np.clip((values - normal / 2) / max(high - normal / 2, 1e-12), 0, 1)
    cover = (_OPACITY * heat)[:, :, np.newaxis]
    picture: Frame = np.rint(frame * (1 - cover) + colours * cover).astype(np.uint8)
    hot = (values >= normal).astype(np.uint8)
    contours, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # White on black shows on any ground.
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.drawContours(picture, contours, -1, colour, thickness, cv2.LINE_AA)
    return picture


def _mask_tile(item: ScoredSample, size: tuple[int, int]) -> Tile:
    if item.sample.mask_path is None:
        return Tile(
            caption="no mask" if item.sample.anomalous else "good part: nothing to mark",
            address=None,
        )
    mask = read_mask(item.sample.mask_path).astype(np.uint8) * 255
    small = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return Tile(caption="mask", address=_address(np.dstack([small] * 3)))


def _shrink(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = min(_LONGER_SIDE / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _address(picture: Frame) -> str:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
