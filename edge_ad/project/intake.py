"""Take pictures in from a folder, a file or a ZIP: each is checked first, nothing is trusted."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from edge_ad.data import GOOD
from edge_ad.project.folder import CategoryFolder, Use, check_label
from edge_ad.project.zips import check_zip, reading_zip, unpack
from edge_ad_runtime.errors import DataError, counted
from edge_ad_runtime.files import temporary_folder
from edge_ad_runtime.model.picture_file import (
    LARGEST_PICTURE_BYTES,
    PICTURE_SUFFIXES,
    list_pictures,
    read_frame,
    read_mask,
)

_OTHERS = {".heic", ".heif", ".avif", ".gif", ".raw", ".cr2", ".cr3", ".nef", ".dng", ".arw"}
"""Pictures of kinds that are not read; other files are passed over in silence."""


@dataclass(kw_only=True)
class Intake:
    """What came of taking pictures in.

    Attributes:
        taken: the pictures, where they lie now.
        masks: how many masks came with them.
        refused: one sentence for each file that was not taken.
    """

    taken: list[Path] = field(default_factory=list)
    masks: int = 0
    refused: list[str] = field(default_factory=list)


Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file to take: its place in the folder or ZIP, and how to get at it."""

    place: PurePosixPath
    copy_to: Callable[[Path], None]

    @property
    def is_mask(self) -> bool:
        return "ground_truth" in self.place.parts[:-1]

    def position(self, use: Use, label: str) -> tuple[Use, str]:
        """Return use and label: those of MVTec's layout where the place has it."""
        folders = self.place.parts[:-1]
        for index, name in enumerate(folders):
            if name == "train":
                return "train", GOOD
            if name in ("test", "ground_truth") and index + 1 < len(folders):
                return "test", folders[index + 1]
        return ("train" if use == "train" and label == GOOD else "test"), label


def take_pictures(
    source: Path,
    folder: CategoryFolder,
    *,
    use: Use = "train",
    label: str = GOOD,
    tell: Tell = lambda done, total: None,
) -> Intake:
    """Copy pictures into a category.

    Where the source has MVTec's layout (`train/good`, `test/DEFECT`, `ground_truth`), it is kept.

    Args:
        source: a folder, a ZIP, or one picture.
        folder: of the category.
        use: of pictures without a layout; defective ones are always for the test.
        label: of pictures without a layout.
        tell: called with how many files of how many are done.

    Raises:
        DataError: nothing of the source can be used; a ZIP that is unsafe is refused as a whole.
        ConfigError: the label cannot be the name of a folder.
    """
    check_label(label)
    try:
        is_folder, is_there = source.is_dir(), source.exists()
        files = list(_folder_files(source)) if is_folder else []
    except OSError as error:  # a folder above it may not be entered, or the path is too long
        raise DataError(f"cannot look into {source}: {error.strerror or error}") from error
    if not is_there:
        raise DataError(f"found no file or folder at {source}: check the path")
    if is_folder:
        return _take_all(files, folder, (use, label), tell)
    if source.suffix.lower() == ".zip":
        with _zip_files(source) as files:
            return _take_all(files, folder, (use, label), tell)
    file = _File(place=PurePosixPath(source.name), copy_to=partial(_copy, source))
    return _take_all([file], folder, (use, label), tell)


@contextmanager
def _zip_files(source: Path) -> Iterator[list[_File]]:
    """Return what may be taken of a ZIP, which stays open meanwhile.

    Raises:
        DataError: it is not a ZIP, unsafe or far too large.
    """
    try:
        with reading_zip(source.name):
            opened = zipfile.ZipFile(source)
        with opened as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            check_zip(entries, source)
            yield [
                _File(
                    place=PurePosixPath(entry.filename.replace("\\", "/")),
                    copy_to=partial(unpack, archive, entry),
                )
                for entry in entries
                if not _is_hidden(PurePosixPath(entry.filename))
            ]
    except OSError as error:
        raise DataError(f"cannot read {source.name}: {error.strerror or error}") from error


def _take_all(
    files: list[_File], folder: CategoryFolder, default: tuple[Use, str], tell: Tell
) -> Intake:
    """Copy and check one file after the other; masks come last, named after their pictures."""
    folder.arrange()
    intake = Intake()
    known = [file for file in files if _is_picture(file.place)]
    known.sort(key=lambda file: (file.is_mask, file.place))
    for file in files:
        if file.place.suffix.lower() in _OTHERS or (len(files) == 1 and not known):
            intake.refused.append(
                f"{file.place.name} is not a PNG, JPEG, BMP, TIFF or WebP file: convert it first"
            )
    stems: dict[tuple[str, str], str] = {}
    try:
        with temporary_folder(folder.path) as temporary:
            for number, file in enumerate(known):
                tell(number, len(known))
                copy = temporary / f"{number}{file.place.suffix.lower()}"
                use, label = file.position(*default)
                try:
                    file.copy_to(copy)
                    if file.is_mask:
                        _take_mask(copy, file, folder, label, stems, intake)
                        continue
                    read_frame(copy)
                    target = folder.add(copy, use, label, _safe_name(file.place.name))
                except DataError as error:
                    # By the name that its owner knows, not by that of the temporary copy.
                    intake.refused.append(str(error).replace(str(copy), file.place.name))
                else:
                    stems[label, file.place.stem] = target.stem
                    intake.taken.append(target)
    except OSError as error:
        raise DataError(
            f"cannot write into {folder.path}: {error.strerror or error}, after "
            f"{counted(len(intake.taken), 'picture')}: check the permissions and the space on the "
            "disk, and take the others"
        ) from error
    tell(len(known), len(known))
    if not intake.taken and not intake.refused:
        raise DataError("found no pictures in it: expected PNG, JPEG, BMP, TIFF or WebP files")
    return intake


def _take_mask(
    copy: Path,
    file: _File,
    folder: CategoryFolder,
    label: str,
    stems: dict[tuple[str, str], str],
    intake: Intake,
) -> None:
    stem = stems.get((label, file.place.stem.removesuffix("_mask")))
    if stem is not None:
        mask = read_mask(copy)
        (key,) = [path for path in intake.taken if (path.parent.name, path.stem) == (label, stem)]
        folder.set_mask(key.relative_to(folder.path).as_posix(), mask)
        intake.masks += 1


def _folder_files(source: Path) -> Iterator[_File]:
    pictures = set(list_pictures(source))
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        odd = path.suffix.lower() in _OTHERS and not _is_hidden(PurePosixPath(relative))
        if path in pictures or odd:
            yield _File(
                place=PurePosixPath(source.name, relative.as_posix())
                if source.name in ("train", "test")
                else PurePosixPath(relative.as_posix()),
                copy_to=partial(_copy, path),
            )


def _copy(source: Path, to: Path) -> None:
    try:
        size = source.stat().st_size
        if size > LARGEST_PICTURE_BYTES:
            raise DataError(
                f"{source.name} has {size / 2**20:.0f} MiB, more than the "
                f"{LARGEST_PICTURE_BYTES // 2**20} MiB that a picture may have: make it smaller"
            )
        shutil.copyfile(source, to)
    except FileNotFoundError as error:
        raise DataError(f"{source.name} is no longer there") from error


def _is_picture(place: PurePosixPath) -> bool:
    return place.suffix.lower() in PICTURE_SUFFIXES and not _is_hidden(place)


def _is_hidden(place: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in place.parts)


def _safe_name(name: str) -> str:
    """Keep what every file system and every URL takes."""
    stem, _, suffix = name.rpartition(".")
    kept = "".join(c if c.isalnum() or c in "-_ " else "_" for c in stem)[:100].strip()
    return f"{kept or 'picture'}.{suffix.lower()}"
