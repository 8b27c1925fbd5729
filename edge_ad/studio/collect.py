"""Step 1, Collect: pictures come in, get a label, and doubtful ones are flagged."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from nicegui import background_tasks, events, ui

from edge_ad.data import GOOD
from edge_ad.project.folder import CategoryFolder, Picture, Use
from edge_ad.project.thumbnails import flags
from edge_ad.studio.gallery import Gallery, item_of, kind_of, picture_address
from edge_ad.studio.layout import go_on, head, step_address, told
from edge_ad.studio.masks import MaskEditor
from edge_ad.studio.sources import Sources
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import ConfigError

FILTERS = {
    "all": "All",
    "good": "Good",
    "test": "For testing",
    "defect": "Defective",
    "flagged": "Flagged",
    "excluded": "Left out",
}
_LOOK_SECONDS = 1.5


def draw(studio: Studio, category: str) -> None:
    """Draw the page."""
    Collect(studio, category)


class Collect:
    """One open page."""

    def __init__(self, studio: Studio, category: str) -> None:
        """Draw it."""
        self._studio, self._category = studio, category
        self._folder = studio.folder(category)
        self._flags: dict[str, list[str]] = {}
        self._seen: object = None
        self._beside: object = ()
        self._chosen, self._filter = "", "all"
        self._pictures: list[Picture] = []
        self._looking, self._flagging = asyncio.Lock(), asyncio.Lock()
        with head(
            "Collect pictures",
            "50 to 200 good parts, seen with the camera and the light of the line, and a few "
            "defective ones to test with.",
        ):
            self._next = go_on("Next: look at the good ones", step_address(category, "look"))
        with ui.element("div").classes("columns"):
            with ui.column().classes("wide").style("gap: 12px"):
                self._sources = Sources(studio, category, self._look)
                self._draw_gallery()
            with ui.column().classes("side panel"):
                self._side = ui.column().classes("w-full").style("gap: 10px")
        self._dialogs = ui.element("div")
        ui.timer(0.05, self._look, once=True)
        ui.timer(_LOOK_SECONDS, self._look)

    def _draw_gallery(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            self._chips = ui.toggle({}).props(
                "no-caps dense unelevated padding='2px 9px' toggle-color=primary"
            )
            self._chips.on_value_change(self._on_filter)
        self._gallery = Gallery("gtdx", self._on_pick, self._on_key)
        self._empty = ui.label(
            "No pictures here yet. Drop some above, or give the folder where they lie."
        ).classes("empty")

    def _on_filter(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._filter = event.value or "all"
        self._show()

    def _on_pick(self, key: str) -> None:
        self._chosen = key
        self._show_chosen()

    async def _on_key(self, key: str, letter: str) -> None:
        places: dict[str, tuple[Use, str]] = {
            "g": ("train", GOOD),
            "t": ("test", GOOD),
            "d": ("test", self._sources.defect),
        }
        if letter in places:
            await self._change(key, lambda: self._folder.place(key, *places[letter]))
        elif letter == "x":
            await self._change(key, lambda: self._folder.exclude(key))
        elif letter == "m":
            await self._draw_mask(key)

    async def _put(self, use: Use, label: str) -> None:
        key = self._chosen
        await self._change(key, lambda: self._folder.place(key, use, label))
        self._gallery.choose(self._chosen)

    async def _exclude(self) -> None:
        key = self._chosen
        await self._change(key, lambda: self._folder.exclude(key))
        self._gallery.choose(self._chosen)

    async def _draw_mask(self, key: str) -> None:
        with told():
            picture = self._folder.picture(key)
            if picture.is_good:
                raise ConfigError(
                    "a mask marks what is defective: call the picture defective first"
                )
            self._dialogs.clear()
            with self._dialogs:
                await MaskEditor(self._folder, picture, self._look).open()

    async def _change(self, key: str, change: Callable[[], Picture]) -> None:
        """Move a picture, and choose the one after it, where nobody has chosen another yet."""
        keys = [item["key"] for item in self._gallery.props["items"]]
        at = keys.index(key) if key in keys else 0
        with told():
            moved = await asyncio.to_thread(change)
            if self._chosen == key:
                self._chosen = keys[at + 1] if at + 1 < len(keys) else moved.key
        await self._look()

    async def _look(self) -> None:
        """Show the folder again if something in it has changed, by whomever."""
        async with self._looking:
            found = await asyncio.to_thread(_state_of, self._folder)
            if found == self._seen:
                return
            self._seen = found
            self._pictures = await asyncio.to_thread(self._folder.pictures)
            self._show()
        background_tasks.create(self._flag())

    async def _flag(self) -> None:
        """Look for doubtful pictures; the first time takes a while, and nobody waits for it."""
        if self._flagging.locked():
            return  # it goes on until it has seen the newest pictures
        async with self._flagging:
            judged: object = None
            while judged is not self._pictures:
                judged = pictures = self._pictures
                included = [one for one in pictures if not one.excluded]
                found = await asyncio.to_thread(flags, included, self._studio.thumbnails)
                if found != self._flags:
                    self._flags = found
                    self._show()

    def _show(self) -> None:
        shown = [one for one in self._pictures if self._is_shown(one)]
        items = [item_of(self._category, one, self._flags.get(one.key, [])) for one in shown]
        if self._chosen not in [one.key for one in shown]:
            self._chosen = shown[0].key if shown else ""
        self._gallery.show(items, self._chosen)
        self._gallery.set_visibility(bool(items))
        self._empty.set_visibility(not items)
        kinds = [kind_of(one) for one in self._pictures]
        numbers = {name: kinds.count(name) for name in FILTERS}
        numbers["all"], numbers["flagged"] = len(kinds), len(self._flags)
        self._chips.set_options(
            {name: f"{title} {numbers[name]}" for name, title in FILTERS.items()},
            value=self._filter,
        )
        self._next.set_enabled(numbers["good"] >= 3)
        self._show_chosen()

    def _is_shown(self, picture: Picture) -> bool:
        if self._filter == "flagged":
            return picture.key in self._flags
        return self._filter in ("all", kind_of(picture))

    def _show_chosen(self) -> None:
        picture = next((one for one in self._pictures if one.key == self._chosen), None)
        doubts = self._flags.get(self._chosen, [])
        # Buttons under somebody's finger are not drawn anew without a reason.
        if self._beside == (picture, doubts):
            return
        self._beside = (picture, doubts)
        self._side.clear()
        with self._side:
            if picture is None:
                ui.label("Choose a picture to see it here.").classes("small")
                return
            ui.html(
                f"<img class='preview' src='{picture_address(self._category, picture)}' alt=''>",
                sanitize=False,
            )
            ui.label(picture.path.name).style("font-weight: 600; overflow-wrap: anywhere")
            for doubt in doubts:
                ui.label(doubt[0].upper() + doubt[1:]).classes("warn small")
            wide = "unelevated outline class=w-full"
            ui.button("Good (G)", on_click=lambda: self._put("train", GOOD)).props(wide)
            ui.button("Good, for testing (T)", on_click=lambda: self._put("test", GOOD)).props(wide)
            with ui.row().classes("w-full no-wrap items-center").style("gap: 8px"):
                known = sorted({one.label for one in self._pictures if not one.is_good})
                name = (
                    ui.input(value=self._sources.defect, autocomplete=known)
                    .props("dense outlined")
                    .style("flex: 1")
                )
                name.on_value_change(lambda event: self._sources.set_defect(str(event.value or "")))
                ui.button(
                    "Defective (D)",
                    on_click=lambda: self._put("test", str(name.value or "").strip()),
                ).props("unelevated outline")
            if not picture.is_good and not picture.excluded:
                mask = "Change its mask (M)" if picture.mask else "Draw a mask (M)"
                ui.button(mask, on_click=lambda: self._draw_mask(picture.key)).props(wide)
            ui.button("Leave out (X)", on_click=self._exclude).props(wide + " color=negative")


def _state_of(folder: CategoryFolder) -> object:
    """Return what changes when a picture comes, goes or moves."""
    found = []
    for place, folders, _ in os.walk(folder.path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        with suppress(FileNotFoundError):  # moved meanwhile
            found.append((place, os.stat(place).st_mtime_ns))
    return tuple(found)
