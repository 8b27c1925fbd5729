"""Pictures for people: heat maps, and frames with their heat map, outline and verdict."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import MissingExtraError
from edge_ad_runtime.model.image import Frame, check_frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result, false_alarms_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OPACITY = 0.6
_HOTTEST = 225
"""Clear red. The colour map ends in a brown that looks colder than the red before it."""

_LONGEST_JPEG_SIDE = 65_500
_BAND_PIXELS = 100_000

_RED, _GREEN = (48, 48, 220), (90, 150, 40)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def color_range(low: float, limit: float) -> tuple[float, float]:
    """Return the map values shown as the coldest and the hottest colour, the same for every frame.

    The coldest is the lowest value on good pictures, and the map's limit lies at two thirds: what
    is normal stays cold, and there is room to tell a faint defect from a strong one.
    """
    return low, low + 1.5 * max(limit - low, 1e-6)


def heat_map(anomaly_map: NDArray[np.float32], low: float, high: float) -> Frame:
    """Return an anomaly map (h, w) in colours: uint8 (h, w, 3), BGR.

    A fixed range keeps the colours of two frames comparable; values outside are clipped to it.
    """
    levels = (_heat(anomaly_map, low, high) * _HOTTEST).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), dtype=np.uint8)


def lay_heat(
    frame: Frame,
    values: NDArray[np.float32],
    low: float,
    limit: float,
    *,
    outline: bool = True,
) -> Frame:
    """Return the frame under the heat of its map, what reaches the limit outlined in white.

    Args:
        frame: uint8, H x W x 3, BGR; it is not changed.
        values: the anomaly map laid over the frame, (H, W).
        low: the coldest colour.
        limit: the map's limit, from which a pixel counts as defective.
        outline: False for a good part, on which nothing counts as defective.
    """
    _, high = color_range(low, limit)
    picture = np.empty_like(frame)
    # In bands, since whole pictures of floating-point numbers would fill a device's memory.
    rows = max(1, _BAND_PIXELS // frame.shape[1])
    for top in range(0, frame.shape[0], rows):
        band = slice(top, top + rows)
        # What every good part shows stays clear, so that the picture remains visible there.
        cover = (_OPACITY * _heat(values[band], (low + limit) / 2, high))[:, :, np.newaxis]
        heat = heat_map(values[band], low, high)
        picture[band] = np.rint(frame[band] * (1 - cover) + heat * cover)
    if outline:
        _outline(picture, values >= limit)
    return picture


def draw_overlay(frame: Frame, result: Result, info: ModelInfo) -> Frame:
    """Return the frame under its heat map with a strip above that says why; defects are outlined.

    A good part gets no outlines: what its map shows above the map's limit is not a defect.

    Args:
        frame: uint8, H x W x 3, BGR; it is not changed.
        result: the verdict on this frame.
        info: of the model file that gave the verdict: its geometry and range of colours.

    Returns:
        uint8, (H + strip) x W x 3, BGR.
    """
    height, width = frame.shape[:2]
    values = info.preprocessing.map_to_frame(result.anomaly_map, (height, width))
    picture = lay_heat(
        frame, values, info.map_range[0], info.map_threshold, outline=result.anomalous
    )
    return np.concatenate([_strip(width, result), picture])


def plot(result: Result, frame: Frame | None = None) -> "Figure":
    """Return a verdict as a figure for a notebook; see `Result.plot`."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"a plot needs the package '{error.name}', which is not installed: "
            "pip install 'edge-ad[plot]'"
        ) from error

    limit = None if result.finder is None else result.finder.map_threshold
    peak = float(result.anomaly_map.max())
    pictures: list[tuple[str, Frame]] = []
    if frame is not None:
        check_frame(frame)
        pictures.append(("frame", frame))
        if limit is not None and result.finder is not None:
            values = result.finder.preprocessing.map_to_frame(result.anomaly_map, frame.shape[:2])
            # Clear up to half the limit, so that the part remains visible.
            overlay = lay_heat(frame, values, limit / 2, limit, outline=result.anomalous)
            pictures.append(("overlay", overlay))
    count = len(pictures) + 1
    figure, axes = pyplot.subplots(1, count, figsize=(4 * count, 4), layout="constrained")
    every = np.atleast_1d(axes)
    for axis, (title, picture) in zip(every, pictures, strict=False):
        axis.imshow(picture[:, :, ::-1])
        axis.set_title(title)
    highest = peak if limit is None else max(peak, 1.5 * limit)
    image = every[-1].imshow(result.anomaly_map, cmap="turbo", vmin=0, vmax=max(highest, 1e-12))
    every[-1].set_title("anomaly map")
    bar = figure.colorbar(image, ax=every[-1], shrink=0.8)
    if limit is not None:
        bar.ax.axhline(limit, color="white", linewidth=2)
        bar.set_label(f"white line: limit of the map, {limit:.4g}")
    for axis in every:
        axis.set_axis_off()
    figure.suptitle(_sentence(result))
    # Whoever asked for the figure has it; pyplot would show it a second time in a notebook.
    pyplot.close(figure)
    return figure


def encode_jpeg(picture: Frame, *, quality: int) -> bytes:
    """Return the picture as JPEG, made smaller where its format ends at 65,500 pixels.

    Raises:
        OSError: OpenCV cannot encode it.
    """
    scale = _LONGEST_JPEG_SIDE / max(picture.shape[:2])
    if scale < 1:
        height, width = (max(1, int(side * scale)) for side in picture.shape[:2])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        picture = np.asarray(small, dtype=np.uint8)
    try:
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise OSError(f"cannot encode the picture as JPEG: {error.err}") from error
    return data.tobytes()


def _heat(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Bring values to 0..1."""
    span = np.float32(max(high - low, 1e-12))
    heat = (values - np.float32(low)) / span
    return np.asarray(np.clip(heat, 0, 1), dtype=np.float32)


def _outline(picture: Frame, hot: NDArray[np.bool_]) -> None:
    contours, _ = cv2.findContours(hot.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(max(picture.shape[:2]) / 400))
    # White on black shows on any ground.
    for color, width in ((_BLACK, thickness + 2), (_WHITE, thickness)):
        cv2.drawContours(picture, contours, -1, color, width, cv2.LINE_AA)


def _strip(width: int, result: Result) -> Frame:
    """Draw the verdict as wide as the frame: red or green, score and limit in white."""
    rows = [_row(width, _sentence(result))]
    if result.anomalous and result.p_value is not None:
        rows.append(_row(width, false_alarms_in_words(result.p_value)))
    ground = np.asarray(_RED if result.anomalous else _GREEN)
    share = np.arange(256)[:, np.newaxis] / 255
    shades = np.rint(ground * (1 - share) + np.asarray(_WHITE) * share).astype(np.uint8)
    return np.asarray(shades[np.concatenate(rows)], dtype=np.uint8)


def _sentence(result: Result) -> str:
    verdict, sign = ("ANOMALOUS", ">=") if result.anomalous else ("GOOD", "<")
    return f"{verdict}  {result.score:.4g} {sign} {result.threshold:.4g}"


def _row(width: int, text: str) -> NDArray[np.uint8]:
    """Draw a row of text as wide as the frame: (h, W), 0 where the ground is seen, else to 255."""
    (full_width, _), _ = cv2.getTextSize(text, _FONT, 1.0, 2)
    scale = min(0.95 * width / full_width, max(0.5, width / 1200))
    thickness = max(1, round(2 * scale))
    (_, text_height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    height = text_height + 2 * baseline + 4
    row = np.zeros((height, width), dtype=np.uint8)
    origin = (round(0.02 * width), height - baseline - 2)
    cv2.putText(row, text, origin, _FONT, scale, (255.0,), thickness, cv2.LINE_AA)
    return row
