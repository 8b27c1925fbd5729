"""Whatever holds pictures as a dataset: a folder, paths, frames in memory, batches of a loader."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.data.dataset import Dataset, Sample
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.image import Frame, check_frame

Pictures = Dataset | Path | str | Iterable[Any]
"""What `as_dataset` takes."""


class FrameDataset(Dataset):
    """Frames in memory, all of good parts; a sample's path is `frame 0`, `frame 1` and so on."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Take over frames of any size: uint8, H x W x 3, BGR."""
        samples = [Sample(path=Path(f"frame {index}")) for index in range(len(frames))]
        super().__init__(samples, name="frames")
        self._frames = {sample.path: frame for sample, frame in zip(samples, frames, strict=True)}

    def load(self, sample: Sample) -> Frame:
        """Return the frame of a sample."""
        return self._frames[sample.path]

    def _part(self, samples: Iterable[Sample]) -> Dataset:
        part = copy.copy(self)
        part._samples = tuple(samples)
        return part


def as_dataset(
    data: Pictures, read_folder: Callable[[Path | str], Dataset] = Dataset.from_folder
) -> Dataset:
    """Return the pictures of whatever holds them.

    Args:
        data: a `Dataset`; a folder or a picture file; an iterable of paths or samples; one frame
            (uint8, H x W x 3, BGR); frames in a list, an array (N, H, W, 3), a torch dataset or a
            data loader. Of a tuple, such as (frame, label), the first entry counts.
        read_folder: says which pictures of a folder count, and as what.

    Raises:
        DataError: something else, or a frame of another kind, with its number.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        path = Path(data)
        if not path.exists():
            raise DataError(f"expected a picture or a folder of pictures, found nothing at {path}")
        return Dataset([Sample(path=path)]) if path.is_file() else read_folder(path)
    items = list(_items(data))
    if not items:
        raise DataError("expected pictures, got none")
    named = [item for item in items if isinstance(item, str | Path | Sample)]
    if len(named) == len(items):
        return Dataset(
            item if isinstance(item, Sample) else Sample(path=Path(item)) for item in named
        )
    return FrameDataset([frame for item in items for frame in _frames(item)])


def _items(data: Any) -> Iterator[Any]:
    """Go through anything that can be iterated, or counted and indexed as a torch dataset."""
    if getattr(data, "ndim", 4) < 4:  # an array or a tensor
        yield data  # one frame, or what is refused as one
    elif isinstance(data, Iterable):
        yield from data
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        yield from (data[index] for index in range(len(data)))
    else:
        raise DataError(
            f"expected a folder, paths, frames or a data loader, got {type(data).__name__}"
        )


def _frames(item: Any) -> Iterator[Frame]:
    """Return the frame, or the frames of a batch (N, H, W, 3)."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    if hasattr(item, "getbands"):
        raise DataError(
            "expected frames in BGR, got an image of Pillow, which is RGB: give its path, or "
            'np.asarray(image.convert("RGB"))[:, :, ::-1]'
        )
    if item is None:
        raise DataError("expected a frame, got None: cv2.imread returns it for what it cannot read")
    pixels = np.asarray(item.detach().cpu() if hasattr(item, "detach") else item)
    for frame in pixels if pixels.ndim == 4 else [pixels]:
        check_frame(frame)
        yield frame
