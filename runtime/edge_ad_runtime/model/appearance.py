"""How a picture looks, whatever it shows: brightness, sharpness, position, same scene or new."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.model.image import Frame

SAME_SCENE = 1.5
"""Grey levels: pictures that differ by less show the same scene, standing still.

Measured on four classes of real parts: the noise of a sensor (sigma 5) and JPEG at quality 50 stay
below 1.0, two different parts in the same place differ by 2.2 and more.
"""

_DIM = 64.0
"""Mean grey level of the darkest pictures for which `SAME_SCENE` was measured."""

_FLICKER = 1.5
_LONGER_SIDE = 256
_THUMBNAIL = 32
_BLOCK = 4
_FLAT = 1e-3
"""Keeps the logarithm finite for a picture without any edge."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """How a picture looks; everything but `grey` is computed when it is asked for.

    Attributes:
        grey: uint8 (h, w), the picture at a longer side of at most 256 pixels.
    """

    grey: NDArray[np.uint8]

    @cached_property
    def brightness(self) -> float:
        """Mean grey level, 0..255."""
        return float(cv2.mean(self.grey)[0])

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Centre of brightness (x, y) in shares of the width and the height, 0..1.

        It moves with a part or a camera that has moved, and with light from another side.
        """
        moments = cv2.moments(self.thumbnail)
        if moments["m00"] == 0:
            return 0.5, 0.5  # a black picture
        x, y = (moments[name] / moments["m00"] for name in ("m10", "m01"))
        return (x + 0.5) / _THUMBNAIL, (y + 0.5) / _THUMBNAIL

    @cached_property
    def log_sharpness(self) -> float:
        """Natural logarithm of the variance of the Laplacian: falls when the picture blurs.

        Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, 2000.
        """
        edges = cv2.Laplacian(self.grey, cv2.CV_16S)
        # The mean of a Laplacian is 0 but for the picture's rim, and this is 30 times as quick as
        # OpenCV's variance of 16-bit values.
        return math.log(cv2.norm(edges) ** 2 / edges.size + _FLAT)

    @cached_property
    def dark_share(self) -> float:
        """Share of pixels that are as good as black, 0..1."""
        return float(np.mean(self.grey <= 2))

    @cached_property
    def bright_share(self) -> float:
        """Share of pixels that are as good as white, 0..1."""
        return float(np.mean(self.grey >= 253))

    @cached_property
    def thumbnail(self) -> NDArray[np.float32]:
        """The picture at 32 x 32 grey pixels, float32."""
        small = cv2.resize(self.grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.float32)

    def difference(self, other: "Appearance") -> float:
        """Return the mean difference of two thumbnails in grey levels, at the same brightness.

        The brightness is evened out, since a flickering lamp does not make a new part.
        """
        gain = (self.brightness + 1) / (other.brightness + 1)
        total = cv2.norm(self.thumbnail, gain * other.thumbnail, cv2.NORM_L1)
        return total / self.thumbnail.size

    def shows_scene_of(self, other: "Appearance") -> bool:
        """Whether both pictures show the same scene, standing still.

        In a dark picture all differences are small, so the limit falls with the brightness; and a
        lamp may flicker, but a picture half as bright is another one.
        """
        darker, brighter = sorted((self.brightness, other.brightness))
        limit = SAME_SCENE * min(1.0, darker / _DIM)
        return brighter < _FLICKER * (darker + 1) and self.difference(other) < limit


def appearance(frame: Frame) -> Appearance:
    """Look at a frame: uint8, H x W x 3, BGR, of any size.

    A large frame is thinned out before it is averaged, so that 12 megapixels cost little more than
    one. The same size of frame is always shrunk in the same way.
    """
    height, width = frame.shape[:2]
    step = max(1, max(height, width) // (2 * _LONGER_SIDE))
    if step > 1:
        frame = _resized(frame, height // step, width // step, cv2.INTER_NEAREST)
    height, width = frame.shape[:2]
    scale = _LONGER_SIDE / max(height, width)
    if scale < 1:
        frame = _resized(frame, round(scale * height), round(scale * width), cv2.INTER_AREA)
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return Appearance(grey=np.asarray(grey, dtype=np.uint8))


def _resized(frame: Frame, height: int, width: int, method: int) -> Frame:
    size = (max(1, width), max(1, height))
    return np.asarray(cv2.resize(frame, size, interpolation=method), dtype=np.uint8)


def earlier_alike(looks: Sequence[Appearance]) -> dict[int, int]:
    """Find pictures that show the scene of an earlier one: index to the first such index.

    As `Appearance.shows_scene_of` for every pair, but for all earlier pictures at once. Averages
    over blocks differ by no more than the pixels do, so that they rule out nearly all pairs.
    """
    if not looks:
        return {}
    thumbnails = np.stack([look.thumbnail.ravel() for look in looks])
    blocks = _THUMBNAIL // _BLOCK
    coarse = thumbnails.reshape(-1, blocks, _BLOCK, blocks, _BLOCK).mean(axis=(2, 4))
    coarse = coarse.reshape(len(looks), -1)
    brightness = np.array([look.brightness for look in looks], np.float32)
    found: dict[int, int] = {}
    for index in range(1, len(looks)):
        own, others = brightness[index], brightness[:index]
        darker, brighter = np.minimum(own, others), np.maximum(own, others)
        near = np.flatnonzero(brighter < _FLICKER * (darker + 1))
        for level in (coarse, thumbnails):
            gain = (own + 1) / (others[near] + 1)
            apart = np.abs(level[index] - gain[:, None] * level[near]).mean(axis=1)
            near = near[apart < SAME_SCENE * np.minimum(1, darker[near] / _DIM)]
        if len(near):
            found[index] = int(near[0])
    return found
