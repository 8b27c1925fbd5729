"""Step 1, Collect: pictures come in, get a label, and doubtful ones are flagged."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import events, ui

from edge_ad.data import GOOD
from edge_ad.project.folder import CategoryFolder, Picture, Use
from edge_ad.project.intake import take_pictures
from edge_ad.project.thumbnails import flags
from edge_ad.studio.gallery import Gallery, item_of, kind_of, picture_address
from edge_ad.studio.layout import complain, count, go_on, head, say, step_address, told
from edge_ad.studio.routes import MOST_UPLOAD_BYTES
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError

ENOUGH = 20
"""Good pictures from which a training makes sense; with fewer its limit is rough."""

FILTERS = {
    "all": "All",
    "good": "Good",
    "test": "For testing",
    "defect": "Defective",
    "flagged": "Flagged",
    "excluded": "Left out",
}
_LOOK_SECONDS = 1.5
_NAME_HEADER = "files => [{name: 'X-File-Name', value: encodeURIComponent(files[0].name)}]"


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
        self._chosen, self._filter = "", "all"
        self._pictures: list[Picture] = []
        with head(
            "Collect pictures",
            "Take 50 to 200 pictures of good parts with the camera, lens and light of the line, "
            "and a few defective parts to test with.",
        ):
            self._next = go_on("Next: look at the good ones", step_address(category, "look"))
        with ui.element("div").classes("columns"):
            with ui.column().classes("wide").style("gap: 12px"):
                self._draw_sources()
                self._draw_gallery()
            with ui.column().classes("side panel"):
                self._side = ui.column().classes("w-full").style("gap: 10px")
        ui.timer(0.05, self._look, once=True)
        ui.timer(_LOOK_SECONDS, self._look)

    def _draw_sources(self) -> None:
        with ui.column().classes("panel").style("gap: 6px; padding: 8px 16px 12px"):
            with ui.row().classes("w-full items-center justify-between"):
                with ui.tabs().props("dense align=left no-caps") as tabs:
                    ui.tab("files", "Files or ZIP")
                    ui.tab("folder", "Folder of this machine")
                with ui.row().classes("items-center").style("gap: 8px"):
                    ui.label("New pictures are").classes("small")
                    self._label = (
                        ui.select([GOOD, "good, for testing", "defective"], value=GOOD)
                        .props("dense outlined options-dense")
                        .style("width: 170px")
                    )
                    self._defect = (
                        ui.input(value="defect", placeholder="name of the defect")
                        .props("dense outlined")
                        .style("width: 150px")
                    )
                    self._defect.bind_visibility_from(self._label, "value", value="defective")
            with ui.tab_panels(tabs, value="files").classes("w-full").style("padding: 0"):
                with ui.tab_panel("files").style("padding: 4px 0"):
                    self._draw_upload()
                with ui.tab_panel("folder").style("padding: 4px 0"):
                    self._draw_folder()
            self._progress = ui.linear_progress(0, show_value=False).props("instant-feedback")
            self._progress.set_visibility(False)

    def _draw_upload(self) -> None:
        upload = ui.upload(
            multiple=True,
            auto_upload=True,
            max_file_size=MOST_UPLOAD_BYTES,
            label="Drop pictures or a ZIP here, or choose them with +",
            on_rejected=lambda: complain(
                f"At least one file is larger than the {MOST_UPLOAD_BYTES // 2**30} GiB that are "
                "taken at once, or no picture: split it, or give its folder on this machine."
            ),
        ).props(
            "send-raw flat method=PUT accept='image/*,.zip,.tif,.tiff,.bmp,.heic' "
            f':headers="{_NAME_HEADER}"'
        )
        upload.style("max-height: 110px")

        def aim() -> None:
            use, label = self._aim()
            upload.props(f'url="/studio/upload/{self._category}?use={use}&label={label}"')

        aim()
        self._label.on_value_change(aim)
        self._defect.on_value_change(aim)
        answer = "(event) => emit(event.xhr.responseText)"
        upload.on("uploaded", self._on_uploaded, js_handler=answer)
        upload.on("failed", self._on_failed, js_handler=answer)
        upload.on("finish", upload.reset, args=[])

    def _draw_folder(self) -> None:
        with ui.row().classes("w-full items-center"):
            field = ui.input("Folder or ZIP on this machine", placeholder="/data/cable").props(
                "dense outlined"
            )
            field.style("flex: 1")

            async def take() -> None:
                button.disable()
                await self._take_from(Path(str(field.value or "").strip()))
                button.enable()

            field.on("keydown.enter", take)
            button = ui.button("Copy the pictures", on_click=take).props("unelevated")

    def _draw_gallery(self) -> None:
        with ui.row().classes("w-full items-center justify-between"):
            self._chips = ui.toggle({}).props("no-caps dense unelevated toggle-color=primary")
            self._chips.on_value_change(self._on_filter)
            ui.html(
                "<span class='small'><kbd>G</kbd> good <kbd>T</kbd> testing <kbd>D</kbd> defective "
                "<kbd>X</kbd> leave out</span>",
                sanitize=False,
            )
        self._gallery = Gallery(self._on_pick, self._on_key)
        self._empty = ui.label(
            "No pictures here yet. Drop some above, or give the folder where they lie."
        ).classes("empty")

    def _aim(self) -> tuple[Use, str]:
        """Return use and label of new pictures."""
        if self._label.value == "defective":
            return "test", str(self._defect.value or "defect").strip()
        return ("train" if self._label.value == GOOD else "test"), GOOD

    async def _take_from(self, source: Path) -> None:
        done = [0, 1]

        def tell(number: int, total: int) -> None:
            done[:] = [number, max(total, 1)]

        self._progress.set_visibility(True)
        timer = ui.timer(0.2, lambda: self._progress.set_value(done[0] / done[1]))
        use, label = self._aim()
        try:
            intake = await asyncio.to_thread(
                take_pictures, source, self._folder, use=use, label=label, tell=tell
            )
            _report(len(intake.taken), intake.refused)
        except EdgeAdError as error:
            complain(str(error))
        finally:
            timer.cancel()
            self._progress.set_visibility(False)
        await self._look()

    async def _on_uploaded(self, event: events.GenericEventArguments) -> None:
        answer = _answer(event)
        _report(int(answer.get("taken", 0)), list(answer.get("refused", [])))
        await self._look()

    def _on_failed(self, event: events.GenericEventArguments) -> None:
        complain(str(_answer(event).get("error", "The file did not arrive: send it again.")))

    def _on_filter(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._filter = event.value or "all"
        self._show()

    def _on_pick(self, key: str) -> None:
        self._chosen = key
        self._show_chosen()

    async def _on_key(self, key: str, letter: str) -> None:
        self._chosen = key
        if letter == "g":
            await self._put("train", GOOD)
        elif letter == "t":
            await self._put("test", GOOD)
        elif letter == "d":
            await self._put("test", str(self._defect.value or "defect").strip())
        elif letter == "x":
            await self._exclude()

    async def _put(self, use: Use, label: str) -> None:
        await self._change(lambda: self._folder.place(self._chosen, use, label))

    async def _exclude(self) -> None:
        await self._change(lambda: self._folder.exclude(self._chosen))

    async def _change(self, change: Callable[[], Picture]) -> None:
        """Move the chosen picture, and choose the one after it."""
        keys = [item["key"] for item in self._gallery.props["items"]]
        at = keys.index(self._chosen) if self._chosen in keys else 0
        with told():
            moved = await asyncio.to_thread(change)
            following = keys[at + 1] if at + 1 < len(keys) else moved.key
            self._chosen = following
        await self._look()

    async def _look(self) -> None:
        """Show the folder again if something in it has changed, by whomever."""
        found = await asyncio.to_thread(_state_of, self._folder)
        if found is None or found == self._seen:
            return
        self._seen = found
        self._pictures = await asyncio.to_thread(self._folder.pictures)
        self._show()
        pictures = [one for one in self._pictures if not one.excluded]
        self._flags = await asyncio.to_thread(flags, pictures, self._studio.thumbnails)
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
        self._side.clear()
        picture = next((one for one in self._pictures if one.key == self._chosen), None)
        with self._side:
            if picture is None:
                ui.label("Choose a picture to see it here.").classes("small")
                return
            ui.html(
                f"<img class='preview' src='{picture_address(self._category, picture)}' alt=''>",
                sanitize=False,
            )
            ui.label(picture.path.name).style("font-weight: 600; overflow-wrap: anywhere")
            for doubt in self._flags.get(picture.key, []):
                ui.label(doubt[0].upper() + doubt[1:]).classes("warn small")
            wide = "unelevated outline class=w-full"
            ui.button("Good (G)", on_click=lambda: self._put("train", GOOD)).props(wide)
            ui.button("Good, for testing (T)", on_click=lambda: self._put("test", GOOD)).props(wide)
            with ui.row().classes("w-full no-wrap items-center").style("gap: 8px"):
                known = self._folder.labels()
                name = (
                    ui.input(value=str(self._defect.value or "defect"), autocomplete=known)
                    .props("dense outlined")
                    .style("flex: 1")
                )
                name.on_value_change(lambda event: self._defect.set_value(event.value))
                ui.button(
                    "Defective (D)",
                    on_click=lambda: self._put("test", str(name.value or "").strip()),
                ).props("unelevated outline")
            ui.button("Leave out (X)", on_click=self._exclude).props(wide + " color=negative")


def _report(taken: int, refused: list[str]) -> None:
    if taken:
        say(f"{count(taken, 'picture')} taken in.")
    if refused:
        more = len(refused) - 1
        others = f" ({count(more, 'more file')} could not be taken either.)" if more else ""
        complain(refused[0] + others)


def _answer(event: events.GenericEventArguments) -> dict[str, Any]:
    try:
        answer = json.loads(str(event.args))
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _state_of(folder: CategoryFolder) -> object:
    """Return what changes when a picture comes, goes or moves."""
    found = []
    places = [folder.path, *(path for path in folder.path.rglob("*") if path.is_dir())]
    for path in places:
        if not path.name.startswith("."):
            found.append((str(path), path.stat().st_mtime_ns))
    return tuple(found)
