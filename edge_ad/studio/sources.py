"""Where pictures come from on the page of Collect: files, a folder, cameras."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import events, ui

from edge_ad.data import GOOD
from edge_ad.project.folder import Use
from edge_ad.project.intake import take_pictures
from edge_ad.studio.camera_panels import BrowserPanel, CameraPanel
from edge_ad.studio.layout import complain, say
from edge_ad.studio.state import Studio
from edge_ad.studio.upload_routes import MOST_UPLOAD_BYTES
from edge_ad_runtime.errors import EdgeAdError, counted

_NAME_HEADER = "files => [{name: 'X-File-Name', value: encodeURIComponent(files[0].name)}]"
_KINDS = (GOOD, "good, for testing", "defective")


class Sources:
    """The panel with a tab for each source, and the label of what comes from it."""

    def __init__(self, studio: Studio, category: str, taken: Callable[[], Awaitable[None]]) -> None:
        """Draw it.

        Args:
            studio: where everything lies.
            category: the product.
            taken: is called when pictures have come.
        """
        self._studio, self._category, self._taken = studio, category, taken
        self._folder = studio.folder(category)
        self._arrived, self._refused = 0, list[str]()
        self._draw()

    @property
    def defect(self) -> str:
        """The name of the defect that new defective pictures show."""
        return str(self._defect.value or "defect").strip()

    def set_defect(self, name: str) -> None:
        """Name the defect otherwise."""
        self._defect.set_value(name)

    def _draw(self) -> None:
        with ui.column().classes("panel").style("gap: 6px; padding: 8px 16px 12px"):
            with ui.row().classes("w-full items-center justify-between"):
                with ui.tabs().props("dense align=left no-caps") as tabs:
                    ui.tab("files", "Files or ZIP")
                    ui.tab("folder", "Folder")
                    ui.tab("camera", "Camera")
                    ui.tab("browser", "Browser's camera")
                with ui.row().classes("items-center").style("gap: 8px"):
                    self._label = (
                        ui.select(list(_KINDS), value=GOOD, label="New pictures are")
                        .props("dense outlined options-dense")
                        .style("width: 176px")
                    )
                    self._defect = (
                        ui.input("Name of the defect", value="defect")
                        .props("dense outlined")
                        .style("width: 150px")
                    )
                    self._defect.bind_visibility_from(self._label, "value", value="defective")
            with ui.tab_panels(tabs, value="files").classes("w-full").style("padding: 0"):
                with ui.tab_panel("files").style("padding: 4px 0"):
                    self._draw_upload()
                with ui.tab_panel("folder").style("padding: 4px 0"):
                    self._draw_folder()
                with ui.tab_panel("camera").style("padding: 4px 0"):
                    CameraPanel(self._studio, self._category, self._aim)
                with ui.tab_panel("browser").style("padding: 4px 0"):
                    BrowserPanel(self._category, self._aim, self._on_answer)
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
            label = quote(label, safe="")
            category = quote(self._category, safe="")
            upload.props(f'url="/studio/upload/{category}?use={use}&label={label}"')

        aim()
        self._label.on_value_change(aim)
        self._defect.on_value_change(aim)
        answer = "(event) => emit(event.xhr.responseText)"
        upload.on("uploaded", self._on_uploaded, js_handler=answer)
        upload.on("failed", self._on_failed, js_handler=answer)

        async def finish() -> None:
            upload.reset()
            _report(self._arrived, self._refused)
            self._arrived, self._refused = 0, []
            await self._taken()

        upload.on("finish", finish, args=[])

    def _draw_folder(self) -> None:
        with ui.row().classes("w-full items-center"):
            field = ui.input("Folder or ZIP on this machine", placeholder="/data/cable").props(
                "dense outlined"
            )
            field.style("flex: 1")

            async def take() -> None:
                text = str(field.value or "").strip()
                if not text:  # as a path it would be the folder where the Studio was started
                    complain("Give the folder or ZIP where the pictures lie, such as /data/cable.")
                    return
                button.disable()
                try:
                    await self._take_from(Path(text).expanduser())
                finally:
                    button.enable()

            field.on("keydown.enter", take)
            button = ui.button("Copy the pictures", on_click=take).props("unelevated")

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
        await self._taken()

    def _on_uploaded(self, event: events.GenericEventArguments) -> None:
        answer = _answer(event)
        self._arrived += int(answer.get("taken", 0))
        self._refused += list(answer.get("refused", []))

    async def _on_answer(self, answer: dict[str, Any]) -> None:
        """Take what the Studio said about a picture of the browser's camera."""
        if "error" in answer:
            complain(str(answer["error"]))
        elif answer.get("refused"):
            complain(str(answer["refused"][0]))
        await self._taken()

    def _on_failed(self, event: events.GenericEventArguments) -> None:
        sentence = _answer(event).get("error", "A file did not arrive: send it again.")
        self._refused.append(str(sentence))


def _report(taken: int, refused: list[str]) -> None:
    if taken:
        say(f"{counted(taken, 'picture')} taken in.")
    if refused:
        more = len(refused) - 1
        others = f" ({counted(more, 'more file')} could not be taken either.)" if more else ""
        complain(refused[0] + others)


def _answer(event: events.GenericEventArguments) -> dict[str, Any]:
    try:
        answer = json.loads(str(event.args))
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
