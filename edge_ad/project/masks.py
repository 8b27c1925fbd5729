"""Masks drawn by hand: rectangles and brush strokes, as pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
"""x and y in 0..1 of width and height, so that it fits the picture at any size."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One thing that was drawn.

    Attributes:
        points: the path of a stroke; of a rectangle two opposite corners.
        width: of a stroke, as a share of the picture's width; 0: it is a rectangle.
        erases: whether it takes away from what was drawn before.
    """

    points: tuple[Point, ...]
    width: float = 0.0
    erases: bool = False


def draw_mask(
    size: tuple[int, int], shapes: Sequence[Shape], base: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that the shapes cover, drawn one after the other.

    Args:
        size: height and width of the picture.
        shapes: what was drawn.
        base: the mask on which it was drawn (H, W); None: an empty one.
    """
    height, width = size
    mask = np.zeros(size, np.uint8) if base is None else base.astype(np.uint8)
    for shape in shapes:
        value = 0 if shape.erases else 1
        points = [(round(x * (width - 1)), round(y * (height - 1))) for x, y in shape.points]
        if shape.width == 0:
            cv2.rectangle(mask, points[0], points[-1], (value,), cv2.FILLED)
            continue
        thickness = max(1, round(shape.width * width))
        for start, end in zip(points, points[1:] or points, strict=False):
            cv2.line(mask, start, end, (value,), thickness)
    return mask.astype(np.bool_)
