"""From a category's name to its pictures: MVTec layout, a plain folder, or a packaged data set."""

import hashlib
import logging
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ad.data.dataset import GOOD, Dataset, Sample, content_hash
from edge_ad.data.elpv import ELPV_TYPES, load_elpv
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES, list_pictures

logger = logging.getLogger(__name__)

MVTEC_CLASSES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)
"""The classes of MVTec AD (Bergmann et al. 2019)."""

MVTEC_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"

_LAYOUT_FOLDERS = ("train", "test", "ground_truth")
_MOST_LISTED = 30

_DEFECTIVE = re.compile(
    r"(abnormal|anomal|defect|fail|fault|reject|scrap)"
    r"|(bad|ng|nok|nio|ko|not[ _-]?(good|ok))(?![a-z])"
    r"|(ausschu(ss|ß)|defekt|fehler|schlecht)",
    re.IGNORECASE,
)
"""How the names of folders with defective parts begin, where nothing else says what they hold.

In English and German.
"""


@dataclass(frozen=True, kw_only=True)
class Category:
    """One product: good pictures to learn from, and a test split, which may be empty."""

    name: str
    train: Dataset
    test: Dataset

    def content_hash(self) -> str:
        """Read every file, and return the SHA-256, in hex, of all pictures, labels and masks.

        Raises:
            DataError: a file cannot be opened, without `skip_bad`.
        """
        masks = Dataset(Sample(path=one.mask_path) for one in self.test if one.mask_path)
        hashes = [content_hash(part.digests()) for part in (self.train, self.test, masks)]
        labels = [(one.label, one.mask_path is not None) for one in self.test]
        return hashlib.sha256(repr((hashes, labels)).encode()).hexdigest()


def load_category(
    name: str, data_root: Path | str = "datasets", *, skip_bad: bool = False
) -> Category:
    """Find the pictures of a category; none of them is read yet.

    `elpv-mono` and `elpv-poly` come from an installed package. Any other name is a folder in
    `data_root`, or one level deeper, and holds either the MVTec layout (`train/good`, `test/good`,
    `test/DEFECT`, `ground_truth/DEFECT/NAME_mask.png` or `NAME.png`) or, at any depth, pictures of
    good parts.

    Args:
        name: of the category.
        data_root: where the category folders lie; by default `datasets` in the current folder.
        skip_bad: leave unreadable pictures out instead of raising when they are read.

    Raises:
        DataError: no such category, no pictures, or a layout that can be read in two ways.
        MissingExtraError: the category comes from a package that is not installed.
    """
    if name in ELPV_TYPES:
        train, test = load_elpv(name, skip_bad=skip_bad)
        return Category(name=name, train=train, test=test)
    folder = _find(name, Path(data_root))
    train = Dataset(Dataset.from_folder(_good_folder(folder)), name=name, skip_bad=skip_bad)
    test = Dataset(_test_samples(folder), name=name, skip_bad=skip_bad)
    return Category(name=name, train=train, test=test)


def good_pictures(folder: Path | str) -> Dataset:
    """Return the pictures of good parts of a folder: those to learn from, where it has the layout.

    Raises:
        DataError: the folder is missing, holds no pictures, or it is not clear which are good.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder of pictures, {folder} is not one: check the path")
    return Dataset(Dataset.from_folder(_good_folder(folder)), name=folder.name)


def labelled_pictures(folder: Path | str) -> Dataset:
    """Return the pictures of a folder to judge a detector by.

    The test split where the folder has the layout, or is the folder `test` of it, or holds a folder
    `good` among others: then a picture's label is the name of the folder that it lies in. Pictures
    of any other folder are good ones.

    Raises:
        DataError: the folder is missing, or holds no pictures.
    """
    folder = Path(folder)
    test = folder / "test" if (folder / "test").is_dir() else folder
    labels = [label.name for label in _folders(test)]
    if labels and (test.name == "test" or (GOOD in labels and len(labels) > 1)):
        return Dataset(_labelled(test), name=folder.name)
    return Dataset.from_folder(folder)


def _find(name: str, data_root: Path) -> Path:
    """Return the folder `name` in the data root, or the only one a level deeper."""
    if name in ("", "..") or Path(name).name != name:
        raise DataError(
            f"expected the name of one folder as class, got {name!r}: "
            "give the folders above it as --data-root"
        )
    if (data_root / name).is_dir():
        return data_root / name
    deeper = [
        parent / name
        for parent in _folders(data_root)
        if not _is_category(parent) and (parent / name).is_dir()
    ]
    if len(deeper) > 1:
        raise DataError(
            f"the class {name} is in several places ({', '.join(map(str, deeper))}): "
            "give the folder above the right one as --data-root"
        )
    if not deeper:
        raise DataError(_missing(name, data_root))
    return deeper[0]


def _missing(name: str, data_root: Path) -> str:
    """Say what was looked for, what there is, and where MVTec's classes come from."""
    if data_root.is_dir():
        names = list_categories(data_root)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        there = ", ".join(names[:_MOST_LISTED]) + more if names else "no class folder"
        found = f"found {there}"
        if _has_pictures(data_root):
            itself = data_root.resolve()
            return (
                f"looked for the class {name} in {data_root / name}, found pictures in "
                f"{data_root}: if these are the good parts, give "
                f"`{_options(itself.parent, itself.name)}`"
            )
    else:
        found = f"but {data_root} does not exist"
    looked_for = f"looked for the class {name} in {data_root / name} and {data_root}/*/{name}"
    if name in MVTEC_CLASSES:
        return (
            f"{looked_for}, {found}: download MVTec AD from {MVTEC_PAGE} and unpack it with "
            f"`mkdir -p {data_root} && tar -xf mvtec_anomaly_detection.tar.xz -C {data_root}`, "
            "or give another --data-root"
        )
    return f"{looked_for}, {found}: check --class and --data-root"


def _options(data_root: Path, name: str) -> str:
    """Return the options that name a class, as a shell takes them."""
    return f"--data-root {shlex.quote(str(data_root))} --class {shlex.quote(name)}"


def list_categories(data_root: Path | str) -> list[str]:
    """Return the names of the category folders in a data root and one level deeper, sorted."""
    return sorted(_categories(Path(data_root)))


def _categories(data_root: Path) -> Iterator[str]:
    for folder in _folders(data_root):
        if _is_category(folder):
            yield folder.name
        else:
            yield from (inner.name for inner in _folders(folder) if _is_category(inner))


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or _has_pictures(folder)


def _good_folder(folder: Path) -> Path:
    """Return the folder below which every picture shows a good part."""
    train = folder / "train"
    if not train.is_dir():
        return _plain_folder(folder)
    if not (train / GOOD).is_dir():
        inner = [path.name for path in _folders(train)]
        if inner:
            raise DataError(
                f"expected the pictures of good parts in {train / GOOD}, "
                f"found {', '.join(inner)} beside it: rename the folder of good parts to {GOOD}"
            )
        return train
    others = [path.name for path in _folders(train) if path.name != GOOD]
    if others or _has_pictures(train):
        logger.warning("only %s is used to train, not what lies beside it", train / GOOD)
    return train / GOOD


def _plain_folder(folder: Path) -> Path:
    """Return a folder of nothing but good parts; refuse one that holds labelled folders."""
    names = [path.name for path in _folders(folder)]
    if any(name in names for name in _LAYOUT_FOLDERS):
        raise DataError(
            f"expected pictures of good parts in {folder / 'train' / GOOD}, found only "
            f"{', '.join(names)}: put them there"
        )
    classes = [path.name for path in _folders(folder) if (path / "train").is_dir()]
    if classes:
        raise DataError(
            f"expected the folder of one class, {folder} holds the classes {', '.join(classes)}: "
            f"give `{_options(folder, classes[0])}`"
        )
    good = [name for name in names if not _DEFECTIVE.match(name)]
    if len(names) > 1 and (GOOD in names or len(good) < len(names)):
        only = GOOD if GOOD in names else good[0] if good else "NAME"
        raise DataError(
            f"{folder} holds {', '.join(names)} and no train folder, so it is not clear what to "
            f"learn from: move the good parts to {folder / 'train' / GOOD}, the others to "
            f"{folder / 'test'}, or give `{_options(folder, only)}`"
        )
    if len(names) > 1:
        logger.warning("the pictures in %s are all taken for good parts", ", ".join(names))
    return folder


def _test_samples(folder: Path) -> list[Sample]:
    test = folder / "test"
    samples = _labelled(test) if (folder / "train").is_dir() and test.is_dir() else []
    masks = folder / "ground_truth"
    if not masks.is_dir() or any(sample.mask_path for sample in samples):
        return samples
    defective = next((sample for sample in samples if sample.anomalous), None)
    other = next((path for path in sorted(masks.rglob("*.*")) if path.is_file()), None)
    if defective and other:
        logger.warning(
            "none of the masks in %s belongs to a defective picture, so that there are no figures "
            "of pixels: the mask of %s is %s, found %s",
            masks,
            defective.path,
            masks / defective.label / f"{defective.path.stem}_mask.png",
            other,
        )
    return samples


def _labelled(test: Path) -> list[Sample]:
    """List `test/LABEL`; the label is the name of the folder and nothing else."""
    if _has_pictures(test):
        raise DataError(
            f"expected folders such as {GOOD} and scratch in {test}, found pictures without a "
            "label: move each into the folder of its label"
        )
    return [
        Sample(path=path, label=label.name, mask_path=_mask(test.parent, label, path))
        for label in _folders(test)
        for path in list_pictures(label)
    ]


def _mask(folder: Path, label: Path, picture: Path) -> Path | None:
    """Return the mask of a defective picture, in the same place below `ground_truth`."""
    if label.name == GOOD:
        return None
    place = folder / "ground_truth" / label.name / picture.relative_to(label).parent
    names = (f"{picture.stem}_mask.png", f"{picture.stem}.png")
    return next((place / name for name in names if (place / name).is_file()), None)


def _folders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, sorted; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _has_pictures(folder: Path) -> bool:
    return any(
        path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
        for path in folder.iterdir()
        if path.is_file()
    )
