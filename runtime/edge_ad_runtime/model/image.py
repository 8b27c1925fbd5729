"""A frame at the size of the model's input, and how it looks: bright, sharp, the same scene or new.

Training and the device both use this file, so that a score cannot change between them.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import DataError

Frame = NDArray[np.uint8]
"""uint8, H x W x 3, BGR."""

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


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The geometry between a frame and the model's input.

    Attributes:
        input_size: (height, width) of the result in pixels.
        resize: None: the whole frame is stretched to `input_size`. Otherwise the shorter side is
            brought to this many pixels first, and `input_size` is cut from the centre.
        in_graph: the model resizes by itself, so that frames go into it as they are.
    """

    input_size: tuple[int, int]
    resize: int | None = None
    in_graph: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be made."""
        height, width = self.input_size
        if height < 32 or width < 32:
            raise DataError(
                f"expected an input size of at least 32x32 pixels, got {height}x{width}"
            )
        if self.resize is not None and self.resize < max(height, width):
            raise DataError(
                f"expected a resize of at least the crop, {max(height, width)} pixels, "
                f"got {self.resize}: raise --resize or lower --center-crop"
            )

    def apply(self, frame: Frame) -> Frame:
        """Return the frame as the model takes it: (h, w, 3), uint8, same channel order."""
        if self.in_graph:
            return frame
        height, width = self.input_size
        if self.resize is None:
            return _resize(frame, height, width)
        full_height, full_width = self._full_size(frame.shape[:2])
        full = _resize(frame, full_height, full_width)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        return np.ascontiguousarray(full[top : top + height, left : left + width])

    def apply_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a ground-truth mask (H, W) in the geometry of the input: (h, w), nearest pixel."""
        height, width = self.input_size
        pixels = mask.astype(np.uint8)
        if self.resize is None:
            return _nearest(pixels, height, width)
        full_height, full_width = self._full_size(mask.shape[:2])
        top, left = (full_height - height) // 2, (full_width - width) // 2
        full = _nearest(pixels, full_height, full_width)
        return np.ascontiguousarray(full[top : top + height, left : left + width])

    def map_to_frame(
        self, anomaly_map: NDArray[np.float32], frame_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Lay an anomaly map (h, w) over its frame: (H, W), outside the crop the map's minimum."""
        if self.resize is None:
            return _enlarge(anomaly_map, *frame_size)
        height, width = self.input_size
        full_height, full_width = self._full_size(frame_size)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        full = np.full((full_height, full_width), anomaly_map.min(), dtype=np.float32)
        full[top : top + height, left : left + width] = anomaly_map
        return _enlarge(full, *frame_size)

    def box_to_frame(
        self, box: tuple[float, float, float, float], frame_size: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Lay a box (x, y, width, height) of the anomaly map over its frame, in frame pixels."""
        height, width = self.input_size
        full_height, full_width = self.input_size
        if self.resize is not None:
            full_height, full_width = self._full_size(frame_size)
        scale_x, scale_y = frame_size[1] / full_width, frame_size[0] / full_height
        left, top = (full_width - width) // 2, (full_height - height) // 2
        x, y, box_width, box_height = box
        return (
            (x + left) * scale_x,
            (y + top) * scale_y,
            box_width * scale_x,
            box_height * scale_y,
        )

    def _full_size(self, frame_size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of the whole frame once its shorter side is `resize` pixels."""
        height, width = frame_size[0], frame_size[1]
        scale = (self.resize or 0) / min(height, width)
        return max(round(height * scale), self.input_size[0]), max(
            round(width * scale), self.input_size[1]
        )


def check_frame(frame: object) -> None:
    """Refuse early what would be scored wrongly: floats, grey pictures, alpha channels.

    Raises:
        DataError: not uint8, H x W x 3.
    """
    if isinstance(frame, str | os.PathLike):
        raise DataError(f"expected a frame, got the path {frame}: read it with read_frame")
    if not isinstance(frame, np.ndarray):
        raise DataError(
            f"expected a frame as a numpy array, got {type(frame).__name__}: {_source_of(frame)}"
        )
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        size = "x".join(str(length) for length in frame.shape)
        raise DataError(
            f"expected a frame as uint8 of H x W x 3 in BGR, got {frame.dtype} of {size}: "
            f"{_remedy(frame)}"
        )


def _source_of(frame: object) -> str:
    """Say how something that is not an array becomes a frame."""
    if frame is None:
        return "cv2.imread returns None for a file that it cannot read; read_frame says why"
    if isinstance(frame, Sequence):
        return "give several frames to score_batch or predict"
    return "convert it with np.asarray, and RGB to BGR with frame[..., ::-1]"


def _remedy(frame: NDArray[np.generic]) -> str:
    """Say how an array that is not a frame becomes one."""
    if frame.size == 0:
        return "it is empty"
    if frame.dtype == np.uint16:
        return "convert it with (frame / 257).round().astype(np.uint8) if it uses all 16 bits"
    if frame.dtype != np.uint8:
        return "convert it to 0..255, values of 0..1 with (255 * frame).round().astype(np.uint8)"
    if frame.ndim == 4:
        return "it is a batch: give it to score_batch or predict"
    if frame.ndim == 3 and frame.shape[2] == 4:
        return "convert it with cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)"
    if frame.ndim == 3 and frame.shape[0] == 3:
        return "put the channels last with frame.transpose(1, 2, 0)"
    return "convert a grey frame with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"


def _resize(frame: Frame, height: int, width: int) -> Frame:
    """Area averaging where the frame shrinks, which keeps fine defects from aliasing away."""
    if frame.shape[:2] == (height, width):
        return frame
    shrinks = frame.shape[0] >= height and frame.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), dtype=np.uint8)


def _nearest(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.bool_]:
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.bool_)


def _enlarge(anomaly_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    enlarged = cv2.resize(anomaly_map, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, dtype=np.float32)


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

        It moves with light from another side, and with a part or a camera that has moved.
        """
        moments = cv2.moments(self.thumbnail)
        if moments["m00"] == 0:
            return 0.5, 0.5  # a black picture
        x, y = (moments[name] / moments["m00"] for name in ("m10", "m01"))
        return (x + 0.5) / _THUMBNAIL, (y + 0.5) / _THUMBNAIL

    @cached_property
    def edge_centre(self) -> tuple[float, float]:
        """Centre of the edges (x, y) in shares of the width and the height, 0..1.

        It moves with a part that is as bright as what is around it, which the centre of brightness
        does not. x weighs the differences of neighbours in a row, y those in a column.
        """
        return _edge_centre(self.grey), _edge_centre(self.grey.T)

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
        """Share of pixels that are practically black, 0..1."""
        return float(np.mean(self.grey <= 2))

    @cached_property
    def bright_share(self) -> float:
        """Share of pixels that are practically white, 0..1."""
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


def _edge_centre(grey: NDArray[np.uint8]) -> float:
    """Return where along the rows of a picture (h, w) its neighbours differ, 0..1."""
    width = grey.shape[1]
    if width < 2:
        return 0.5
    differences = cv2.absdiff(grey[:, 1:], grey[:, :-1])
    sums = cv2.reduce(differences, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0].astype(np.float64)
    total = float(sums.sum())
    return float(sums @ np.arange(1, width)) / total / width if total > 0 else 0.5


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
