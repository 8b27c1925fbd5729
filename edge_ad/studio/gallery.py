"""The gallery: all pictures of a product as thumbnails, chosen by click or arrow keys."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import events, ui

from edge_ad.project.folder import Picture

KINDS = {"good": "good", "test": "testing", "defect": "defect", "excluded": "left out"}
"""Kind of a picture, as in the style sheet, and its tag."""


class Gallery(ui.element, component="static/gallery.js"):
    """Thumbnails; the browser loads only those in view.

    All are laid out: to skip those out of view (`content-visibility`) made scrolling four times
    slower.
    """

    def __init__(
        self,
        moving: str,
        on_pick: Callable[[str], None],
        on_key: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """Show nothing yet.

        Args:
            moving: the letters after which the next picture is chosen, before anything is
                answered: whoever knows the parts presses several keys a second.
            on_pick: is called with the key of a picture that was chosen.
            on_key: is called with the key of the chosen picture and the letter that was pressed.
        """
        super().__init__()
        self.props["items"], self.props["chosen"], self.props["moving"] = [], "", moving
        self.on("pick", lambda event: on_pick(_text(event, "key")))
        self.on("act", lambda event: on_key(_text(event, "key"), _text(event, "letter")))

    def show(self, items: list[dict[str, Any]], chosen: str) -> None:
        """Show these items, with one of them chosen."""
        self.props["items"], self.props["chosen"] = items, chosen
        self.update()

    def choose(self, key: str) -> None:
        """Choose a picture, as a click on it does."""
        self.run_method("choose", key)


def item_of(category: str, picture: Picture, doubts: list[str], note: str = "") -> dict[str, Any]:
    """Return what the gallery shows of a picture."""
    kind = kind_of(picture)
    tag = picture.label if kind == "defect" else KINDS[kind]
    return {
        "key": picture.key,
        "name": picture.path.name,
        "src": thumbnail_address(category, picture),
        "kind": kind,
        "tag": note or tag,
        "flag": "; ".join(doubts),
        "short": short_doubt(doubts),
    }


def kind_of(picture: Picture) -> str:
    """Return one of `KINDS`."""
    if picture.excluded:
        return "excluded"
    if not picture.is_good:
        return "defect"
    return "good" if picture.use == "train" else "test"


def short_doubt(doubts: list[str]) -> str:
    """Return the first word or two of the first doubt."""
    if not doubts:
        return ""
    return "alike" if doubts[0].startswith("nearly") else doubts[0].partition(":")[0]


def thumbnail_address(category: str, picture: Picture) -> str:
    """Return the address of a picture's small one; it changes when the file does."""
    return f"/studio/thumbnail/{_place(category, picture)}?v={version_of(picture.path)}"


def picture_address(category: str, picture: Picture) -> str:
    """Return the address of a picture at the size of a screen."""
    return f"/studio/picture/{_place(category, picture)}?v={version_of(picture.path)}"


def mask_address(category: str, picture: Picture) -> str:
    """Return the address of a picture's mask, as a layer of one colour."""
    version = version_of(picture.mask) if picture.mask else "none"
    return f"/studio/mask/{_place(category, picture)}?v={version}"


def _place(category: str, picture: Picture) -> str:
    return f"{quote(category, safe='')}/{quote(picture.key)}"


def version_of(path: Path) -> str:
    """Return what changes with the content of a file."""
    try:
        return f"{path.stat().st_mtime_ns:x}"
    except OSError:
        return "gone"


def _text(event: events.GenericEventArguments, name: str) -> str:
    return str(event.args.get(name, ""))[:1000]
