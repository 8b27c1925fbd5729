"""Parts that people on the line called wrongly judged: the folder that the live page fills."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_ad.data import GOOD
from edge_ad.project.folder import CategoryFolder
from edge_ad.project.intake import take_pictures
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.document import MAX_NUMBER
from edge_ad_runtime.model.picture_file import list_pictures

MISSED = "missed"

_joining = threading.Lock()
"""To look for a picture and to add it is one step: two people may confirm the same one at once."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """One part.

    Attributes:
        path: of the picture, as it was captured.
        mark: what it was marked as.
        score: its score on the line; None: not known.
        who: marked it; empty: not known.
        known: whether the category has a picture of this name already.
    """

    path: Path
    mark: Literal["false alarm", "missed"]
    score: float | None
    who: str
    known: bool


def read_marks(source: Path, folder: CategoryFolder) -> list[Marked]:
    """Return the marked parts of a category, the oldest first.

    Args:
        source: the folder `marks` of the live page, or that of the category in it.
        folder: the category that they may join.

    Raises:
        DataError: the folder is not there or holds none.
    """
    inner = source / folder.name
    root = inner if inner.is_dir() else source
    if not root.is_dir():
        raise DataError(f"found no folder at {source}: copy it here from the device first")
    names = {picture.path.name for picture in folder.pictures()}
    found = []
    for path in list_pictures(root):
        place = path.relative_to(root).parts
        if place[:2] not in (("train", GOOD), ("test", MISSED)):
            continue
        about = _about(path)
        score = about.get("score")
        within = isinstance(score, int | float) and abs(score) <= MAX_NUMBER
        found.append(
            Marked(
                path=path,
                mark="missed" if place[0] == "test" else "false alarm",
                score=float(score) if isinstance(score, int | float) and within else None,
                who=str(about.get("who", "")),
                known=path.name in names,
            )
        )
    if not found:
        others = sorted(path.name for path in root.iterdir() if (path / "train").is_dir())
        listed = ", ".join(others)
        there = f"; it holds the products {listed}: give the folder of one" if others else ""
        raise DataError(
            f"found no marked parts of {folder.name} in {root}: the live page writes them as "
            f"train/good and test/missed{there}"
        )
    return sorted(found, key=lambda one: one.path.name)


def join(marked: Marked, folder: CategoryFolder) -> Path:
    """Add a marked part to the category: a false alarm is a good part, a missed one a test.

    Returns:
        The path of the picture, also of one that has joined before.

    Raises:
        DataError: it cannot be read.
    """
    with _joining:
        for picture in folder.pictures():
            if picture.path.name == marked.path.name:
                return picture.path
        if marked.mark == "false alarm":
            intake = take_pictures(marked.path, folder, use="train", label=GOOD)
        else:
            intake = take_pictures(marked.path, folder, use="test", label=MISSED)
        if not intake.taken:
            raise DataError(intake.refused[0])
        return intake.taken[0]


def _about(path: Path) -> dict[str, object]:
    """Return what lies beside the picture, as far as it can be read."""
    try:
        document = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
