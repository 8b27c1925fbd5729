"""The model's input size, from the shape of the pictures."""

import logging
import math
import statistics

import numpy as np

from edge_ad.data.dataset import Dataset
from edge_ad_runtime.errors import DataError

_MULTIPLE = 32
"""The coarsest stride of the backbones: every feature map then has a whole number of positions."""

_N_LOOKED_AT = 9

_SAME_SHAPE = 1.25
"""Aspect ratios up to this factor apart count as one shape."""

logger = logging.getLogger(__name__)


def choose_input_size(dataset: Dataset, *, area: int = 256 * 256) -> tuple[int, int]:
    """Return (height, width): multiples of 32 that keep the aspect ratio of the pictures.

    The ratio is the median of a few pictures, evenly spaced over the dataset. A picture of
    500 x 1260 pixels, taller than wide, gives (416, 160).

    Args:
        dataset: pictures of which some are looked at.
        area: pixels of the result, about.

    Raises:
        DataError: no picture could be read.
    """
    count = min(len(dataset), _N_LOOKED_AT)
    indices = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    samples = [dataset[index] for index in indices]
    frames = ((sample.path, dataset.read(sample)) for sample in samples)  # one at a time
    shapes = {path: frame.shape for path, frame in frames if frame is not None}
    ratios = {path: shape[0] / shape[1] for path, shape in shapes.items()}
    if not ratios:
        raise DataError(
            f"expected pictures to choose the input size from, none of {count} could be read: "
            "replace them or give --input-size"
        )
    ratio = statistics.median(ratios.values())
    odd = [path for path, one in ratios.items() if not 1 / _SAME_SHAPE < one / ratio < _SAME_SHAPE]
    if odd:
        height, width = shapes[odd[0]][:2]
        logger.warning(
            "%d of the %d pictures that were looked at, such as %s (%d x %d pixels), are much "
            "wider or narrower than most: all pictures are stretched to one input size; turn, crop "
            "or remove those",
            len(odd),
            len(ratios),
            odd[0],
            width,
            height,
        )
    return _to_multiple(math.sqrt(area * ratio)), _to_multiple(math.sqrt(area / ratio))


def _to_multiple(side: float) -> int:
    return max(round(side / _MULTIPLE), 1) * _MULTIPLE
