"""The pictures of a report: small JPEGs as data addresses."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data import ScoredSample
from edge_ad.report.report import Report
from edge_ad_runtime.model.image import Frame, read_frame, read_mask
from edge_ad_runtime.model.overlay import color_range, heat_map, lay_heat

_LONGER_SIDE = 360
"""Pixels; twice what the page shows on a plain screen, so that it stays sharp on a fine one."""

_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a row; `address` None: there is none, and the caption says why."""

    caption: str
    address: str | None


def make_tiles(
    report: Report, item: ScoredSample, left_out: NDArray[np.float32] | None = None
) -> list[Tile]:
    """Return picture, heat map, overlay and mask of one sample.

    Args:
        report: with the detector that computes the map.
        item: the sample and its score.
        left_out: distances (patches,) of a training picture with itself left out of the fit; None:
            of another picture.

    Raises:
        DataError: the picture or its mask cannot be read.
    """
    full = read_frame(item.sample.path)
    detector, metrics = report.detector, report.metrics
    if left_out is None:
        anomaly_map = detector.predict([full])[0].anomaly_map
    else:
        anomaly_map = detector.map_of(left_out)
    frame = _shrink(full)
    height, width = frame.shape[:2]
    values = detector.preprocessing.map_to_frame(anomaly_map, (height, width))
    low, limit = metrics.map_range[0], metrics.map_threshold
    overlay = lay_heat(frame, values, low, limit, outline=item.score >= report.threshold)
    return [
        Tile(caption="picture", address=_address(frame)),
        Tile(caption="heat map", address=_address(heat_map(values, *color_range(low, limit)))),
        Tile(caption="overlay", address=_address(overlay)),
        _mask_tile(item, (height, width)),
    ]


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
