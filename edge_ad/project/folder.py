"""The folder of one category, in MVTec layout: what is in it, and how a picture changes its place.

    cable/train/good/NAME.png               good parts to learn from
    cable/test/good/NAME.png                good parts to test with
    cable/test/scratch/NAME.png             defective parts
    cable/ground_truth/scratch/NAME_mask.png
    cable/excluded/train/good/NAME.png      left out; its path says where it was

Every change is one rename, so that two programs at once cannot leave half a change behind.
"""

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data import GOOD
from edge_ad.data.elpv import ELPV_TYPES
from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.files import folder_name, write_whole
from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES, list_pictures

Use = Literal["train", "test"]

EXCLUDED = "excluded"
_MASKS = "ground_truth"
_RESERVED = ("train", "test", _MASKS, EXCLUDED)
_LONGEST_NAME = 60
_LABEL = re.compile(r"\w[\w -]{0,59}")

_arranging = threading.Lock()
"""Whoever came in the middle would find a layout, and leave out the pictures still to be moved."""

_arranged: dict[Path, dict[str, str]] = {}
"""New keys by the old ones, which other browsers still show."""

_naming = threading.Lock()
"""To find a free name and to take it is one step: two browsers may send the same name at once."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a category.

    Attributes:
        key: path below the category's folder, with `/`; it changes with its place.
        path: of the file.
        use: to learn from or to test with.
        label: `good`, or the name of the defect.
        excluded: whether it is left out.
        mask: picture of the defective pixels; None: there is none.
    """

    key: str
    path: Path
    use: Use
    label: str
    excluded: bool = False
    mask: Path | None = None

    @property
    def is_good(self) -> bool:
        """Whether it shows a good part."""
        return self.label == GOOD


class CategoryFolder:
    """The pictures of one category.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        """Look at a folder that is there; `create` makes one.

        Raises:
            DataError: it is not there.
        """
        self.path = path
        if not path.is_dir():
            raise DataError(f"there is no product {path.name} in {path.parent}: was it renamed?")

    @classmethod
    def create(cls, name: str, data_root: Path) -> "CategoryFolder":
        """Make the folder of a new category.

        Raises:
            ConfigError: the name cannot be that of a folder, or it is taken.
            DataError: the folder cannot be made.
        """
        check_category_name(name)
        path = data_root / name
        if path.exists():
            raise ConfigError(f"there is already a product {name}: open it, or choose another name")
        try:
            (path / "train" / GOOD).mkdir(parents=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {path}: {error.strerror}") from error
        return cls(path)

    @property
    def name(self) -> str:
        """The name of the category."""
        return self.path.name

    def pictures(self) -> list[Picture]:
        """Return all pictures: those to learn from, those to test with, those left out."""
        return [*self._placed(self.path, ""), *self._placed(self.path / EXCLUDED, f"{EXCLUDED}/")]

    def picture(self, key: str) -> Picture:
        """Return one picture.

        Raises:
            DataError: it is no longer there, or the key is not that of a picture.
        """
        parts = Path(key).parts
        inside = not Path(key).anchor and ".." not in parts  # "/etc/x.png" would lead out, too
        if Path(key).suffix.lower() in PICTURE_SUFFIXES and inside:
            excluded = parts[:1] == (EXCLUDED,)
            place = parts[1:] if excluded else parts
            found = self._picture(self.path / key, place, key, excluded=excluded) if place else None
            if found is not None and os.path.isfile(found.path):  # False for what is not a path
                return found
        raise DataError(
            f"the picture {Path(key).name} is no longer there: somebody has moved or deleted it"
        )

    def labels(self) -> list[str]:
        """Return the names of the defects that have pictures, sorted."""
        return sorted({picture.label for picture in self.pictures() if not picture.is_good})

    def arrange(self) -> dict[str, str]:
        """Put a plain folder of good parts into the layout; one that has it stays as it is.

        Returns:
            New keys by the old ones, of the pictures that were moved, now or earlier.
        """
        with _arranging:
            if not any((self.path / name).is_dir() for name in ("train", "test")):
                moved = _arranged[self.path] = {}
                for picture in self._placed(self.path, ""):
                    wanted = self.path / "train" / GOOD / picture.path.name
                    moved[picture.key] = self._key(self._move(picture.path, wanted))
            return _arranged.get(self.path, {})

    def place(self, key: str, use: Use, label: str) -> Picture:
        """Give a picture another use or label; takes it back where it was excluded.

        Defective parts are always test pictures. A mask goes along.

        Raises:
            ConfigError: the label cannot be the name of a folder.
            DataError: the picture is no longer there, or cannot be moved.
        """
        picture = self.picture(self.arrange().get(key, key))
        use = "train" if use == "train" and label == GOOD else "test"
        if (picture.use, picture.label, picture.excluded) == (use, label, False):
            return picture
        check_label(label)
        wanted, own = self.path / use / label / picture.path.name, picture.mask
        if own is None:
            target = self._move(picture.path, wanted)
        else:  # of a good part it waits under the old label, should that key have been a slip
            masked = picture.label if label == GOOD else label
            target = self._move(picture.path, wanted, masked, own)
            mask = self._mask_path(masked, target.stem)
            if mask != own:
                self._move(own, mask)
        return self.picture(self._key(target))

    def exclude(self, key: str) -> Picture:
        """Leave a picture out of training and test; `restore` brings it back.

        Raises:
            DataError: it is no longer there, or cannot be moved.
        """
        picture = self.picture(self.arrange().get(key, key))
        if picture.excluded:
            return picture
        target = self._move(picture.path, self.path / EXCLUDED / picture.key)
        return self.picture(self._key(target))

    def restore(self, key: str) -> Picture:
        """Bring an excluded picture back to where it was."""
        picture = self.picture(key)
        return self.place(key, picture.use, picture.label) if picture.excluded else picture

    def folder_for(self, use: Use, label: str) -> Path:
        """Make the folder for new pictures of a use and label, in which others may write them.

        A plain folder of good parts is put into the layout first: beside a folder `train`, its
        pictures would no longer count.

        Raises:
            ConfigError: the label cannot be the name of a folder.
            DataError: the folder cannot be made.
        """
        check_label(label)
        self.arrange()
        folder = self.path / use / label
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {folder}: {error.strerror}") from error
        return folder

    def add(self, file: Path, use: Use, label: str, name: str) -> Path:
        """Move a file in as a new picture, under this name or the next free one.

        Args:
            file: on the same file system.
            use: to learn from or to test with.
            label: `good`, or the name of the defect.
            name: that the picture should have.

        Returns:
            The path of the picture.

        Raises:
            ConfigError: the label cannot be the name of a folder.
            DataError: the file cannot be moved.
        """
        check_label(label)
        return self._move(file, self.path / use / label / name, label)

    def set_mask(self, key: str, mask: NDArray[np.bool_]) -> None:
        """Write the defective pixels (H, W) of a picture; an empty mask takes it away.

        Raises:
            DataError: the picture is no longer there, shows a good part, or cannot be written.
        """
        picture = self.picture(key)
        if picture.is_good:
            raise DataError(f"{picture.path.name} shows a good part: mark it as defective first")
        path = picture.mask or self._mask_path(picture.label, picture.path.stem)
        try:
            if not mask.any():
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            data = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
            write_whole(path, data)
        except OSError as error:
            raise DataError(f"cannot write the mask {path}: {error.strerror}") from error

    def _placed(self, root: Path, prefix: str) -> Iterator[Picture]:
        layout = [root / "train", root / "test"]
        if not prefix and not any(folder.is_dir() for folder in layout):
            layout = [root]
        for folder in layout:
            if folder.is_dir():
                for path in list_pictures(folder):
                    place = path.relative_to(root).parts
                    key = prefix + path.relative_to(root).as_posix()
                    if not key.isprintable():  # no browser can name it, or JSON hold it
                        continue
                    found = self._picture(path, place, key, excluded=bool(prefix))
                    if found is not None:
                        yield found

    def _picture(
        self, path: Path, place: tuple[str, ...], key: str, *, excluded: bool
    ) -> Picture | None:
        """Read use and label from a place such as (test, scratch, 003.png)."""
        if place[0] in (EXCLUDED, _MASKS):
            return None
        if place[0] != "test":
            return Picture(key=key, path=path, use="train", label=GOOD, excluded=excluded)
        if len(place) < 3:
            return None
        label = place[1]
        masks = [self._mask_path(label, path.stem), self.path / _MASKS / label / f"{path.stem}.png"]
        mask = next((mask for mask in masks if label != GOOD and mask.is_file()), None)
        return Picture(key=key, path=path, use="test", label=label, excluded=excluded, mask=mask)

    def _mask_path(self, label: str, stem: str) -> Path:
        return self.path / _MASKS / label / f"{stem}_mask.png"

    def _key(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _move(
        self, source: Path, wanted: Path, masked: str | None = None, own: Path | None = None
    ) -> Path:
        """Rename to a path, or to the next one that is free; returns which.

        Args:
            source: the file.
            wanted: where it should go.
            masked: a name that has a mask under this label is not free: that of a picture which
                was deleted must not become that of another one.
            own: the mask that comes along.
        """
        try:
            with _naming:
                target, number = wanted, 2
                while not self._is_free(target, masked, own):
                    target = wanted.with_stem(f"{wanted.stem}-{number}")
                    number += 1
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(source, target)
                return target
        except FileNotFoundError as error:
            raise DataError(
                f"the picture {source.name} is no longer there: somebody has moved or deleted it"
            ) from error
        except OSError as error:
            raise DataError(f"cannot move {source} to {wanted}: {error.strerror}") from error

    def _is_free(self, path: Path, masked: str | None, own: Path | None) -> bool:
        """Whether nothing has this name, with whatever ending: masks are found by the stem."""
        taken = [path.with_suffix(suffix) for suffix in (path.suffix, *PICTURE_SUFFIXES)]
        if masked is not None:
            taken.append(self._mask_path(masked, path.stem))
        return not any(os.path.lexists(one) for one in taken if one != own)


def check_category_name(name: str) -> None:
    """Refuse what cannot be the name of a category's folder.

    Raises:
        ConfigError: with what was expected.
    """
    taken = name in ELPV_TYPES or name in _RESERVED
    if taken or len(name) > _LONGEST_NAME or folder_name(name) != name:
        raise ConfigError(
            f"expected a name of up to {_LONGEST_NAME} letters, digits, spaces and -_.,+()[] that "
            f"begins with none of ' -.', such as cable-M8, got {name[:80]!r}"
        )


def check_label(label: str) -> None:
    """Refuse what cannot be the name of a defect's folder.

    Raises:
        ConfigError: with what was expected.
    """
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            "expected a name of up to 60 letters, digits, spaces, '-' and '_' for the defect, such "
            f"as scratch, got {label[:80]!r}"
        )
