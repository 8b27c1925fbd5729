"""Small pictures for a gallery, made once and kept on disk, and how the pictures look."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_ad.project.folder import Picture
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.image import Appearance, Frame, appearance, earlier_alike
from edge_ad_runtime.model.overlay import encode_jpeg
from edge_ad_runtime.model.picture_file import read_frame
from edge_ad_runtime.stream.collect import doubts_of, usual_of

SIDE = 256
_QUALITY = 85
_AT_ONCE = 2
"""Pictures decoded at the same time: 12 megapixels take 36 MB each."""

_MOST_LOOKS = 20_000


class Thumbnails:
    """A folder of JPEGs, one for each picture and each change of it."""

    def __init__(self, folder: Path) -> None:
        """Keep them in this folder, which is made when it is needed."""
        self._folder = folder
        self._places = threading.Semaphore(_AT_ONCE)
        self._looks: dict[str, Appearance] = {}

    def of(self, path: Path) -> Path:
        """Return the small picture of a picture file.

        Raises:
            DataError: the picture cannot be read, or the small one cannot be written.
        """
        small = self._folder / f"{_identity(path)}.jpg"
        if small.is_file():
            return small
        with self._places:
            if not small.is_file():
                self._make(path, small)
        return small

    def look(self, path: Path) -> Appearance:
        """Return how a picture looks, at the size of its small one.

        Raises:
            DataError: as `of`.
        """
        identity = _identity(path)
        look = self._looks.get(identity)
        if look is None:
            if len(self._looks) > _MOST_LOOKS:
                self._looks.clear()
            look = appearance(read_frame(self.of(path)))
            # Computed now, so that the large array can go.
            _ = look.brightness, look.log_sharpness, look.dark_share, look.bright_share
            _ = look.thumbnail
            vars(look)["grey"] = np.zeros((1, 1), np.uint8)
            self._looks[identity] = look
        return look

    def _make(self, path: Path, small: Path) -> None:
        frame = shrunk(read_frame(path), SIDE)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(small, encode_jpeg(frame, quality=_QUALITY))
        except OSError as error:
            raise DataError(f"cannot write a thumbnail: {error.strerror or error}") from error


def shrunk(frame: Frame, side: int) -> Frame:
    """Return the frame with sides of at most this many pixels."""
    scale = side / max(frame.shape[:2])
    if scale >= 1:
        return frame
    height, width = (max(1, round(length * scale)) for length in frame.shape[:2])
    resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def flags(pictures: Sequence[Picture], thumbnails: Thumbnails) -> dict[str, list[str]]:
    """Return what may be wrong with pictures, by their keys; those without a doubt are left out.

    Blur and exposure as `edge-ad collect` judges them, and pictures that show the same scene as an
    earlier one; files that cannot be read are named as well.
    """
    found: dict[str, list[str]] = {}
    known: list[tuple[Picture, Appearance]] = []
    for picture in pictures:
        try:
            known.append((picture, thumbnails.look(picture.path)))
        except DataError as error:
            found[picture.key] = [f"cannot be read: {error}"]
    looks = [look for _, look in known]
    usual, alike = usual_of(looks), earlier_alike(looks)
    for index, (picture, look) in enumerate(known):
        doubts = doubts_of(look, usual)
        if index in alike:
            doubts.append(f"nearly the same picture as {known[alike[index]][0].path.name}")
        if doubts:
            found[picture.key] = doubts
    return found


def _identity(path: Path) -> str:
    """Name the content of a file without reading it.

    Raises:
        DataError: it is no longer there.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(
            f"the picture {path.name} is no longer there: somebody has moved or deleted it"
        ) from error
    # Not the path: a picture that moves to another label keeps its small one.
    text = f"{state.st_ino} {state.st_dev} {state.st_mtime_ns} {state.st_size}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
