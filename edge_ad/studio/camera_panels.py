"""Taking pictures with a camera on the page of Collect."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from nicegui import ui

from edge_ad.project.folder import Use
from edge_ad.studio.cameras import BrowserCamera, CameraCollection
from edge_ad.studio.layout import complain, words_of
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import EdgeAdError, counted

Aim = Callable[[], tuple[Use, str]]
"""Returns use and label of new pictures."""

_PACES = {0: "when I press the button", 1000: "every second", 2000: "every 2 s", 5000: "every 5 s"}
_PREVIEW = "max-height: 300px; width: auto; max-width: 100%; align-self: center"


class CameraPanel:
    """A camera of this machine or of the network."""

    def __init__(self, studio: Studio, category: str, aim: Aim) -> None:
        """Draw the panel; the camera is opened by its button."""
        self._studio, self._folder, self._aim = studio, studio.folder(category), aim
        self._camera: CameraCollection | None = None
        self._id, self._number, self._is_gone = "", -1, False
        with ui.row().classes("w-full items-center no-wrap"):
            self._source = ui.input(
                "Number of the camera, or URL", value="0", placeholder="rtsp://10.0.0.5/a"
            ).props("dense outlined")
            self._source.style("flex: 1")
            self._pace = ui.select(_PACES, value=0, label="Take a picture").props("dense outlined")
            self._pace.style("width: 200px")
            self._open = ui.button("Open", on_click=self._on_open).props("unelevated")
            self._take = ui.button("Take a picture", on_click=self._on_take).props("unelevated")
            self._close = ui.button("Close", on_click=self.close).props("outline")
        self._words = ui.label().classes("small")
        self._picture = ui.interactive_image().style(_PREVIEW)
        self._show_state()
        ui.timer(0.3, self._show)
        ui.context.client.on_delete(self._on_gone)

    def _on_gone(self) -> None:
        self._is_gone = True
        self.close()

    def close(self) -> None:
        """Let go of the camera."""
        if self._camera is not None:
            self._camera.close()
            self._studio.cameras.pop(self._id, None)
            self._camera = None
        self._show_state()

    async def _on_open(self) -> None:
        self._open.disable()
        try:
            folder = await asyncio.to_thread(self._folder.folder_for, *self._aim())
            pace = int(self._pace.value)
            camera = await asyncio.to_thread(
                CameraCollection,
                str(self._source.value or "").strip(),
                folder,
                pace / 1000 if pace else None,
            )
        except (EdgeAdError, OSError) as error:
            complain(words_of(error))
        else:
            self._camera, self._id, self._number = camera, secrets.token_hex(8), -1
            self._studio.cameras[self._id] = camera
            if self._is_gone:  # the page was closed while the camera was being opened
                self.close()
                return
        self._show_state()

    def _on_take(self) -> None:
        if self._camera is not None:
            self._camera.ask()

    def _show_state(self) -> None:
        is_open = self._camera is not None
        self._open.set_enabled(not is_open)
        self._open.set_visibility(not is_open)
        self._take.set_visibility(is_open and self._pace.value == 0)
        self._close.set_visibility(is_open)
        self._source.set_enabled(not is_open)
        self._pace.set_enabled(not is_open)
        self._picture.set_visibility(is_open)

    def _show(self) -> None:
        camera = self._camera
        if camera is None:
            return
        number, frame = camera.newest
        if frame is not None and number != self._number:
            self._number = number
            self._picture.set_source(f"/studio/camera/{self._id}.jpg?n={number}")
        taken = camera.collection
        words = f"{counted(len(taken.paths), 'picture')} taken"
        if taken.alike:
            words += f", {taken.alike} of a standing scene passed over"
        self._words.set_text(f"{words}. {camera.said}")
        if camera.is_over:
            self.close()


class BrowserPanel:
    """The camera of the computer on which the browser runs."""

    def __init__(
        self, category: str, aim: Aim, on_answer: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        """Draw the panel; the camera is opened by its button."""
        self._category, self._aim = category, aim
        with ui.row().classes("w-full items-center"):
            self._pace = ui.select(_PACES, value=0, label="Take a picture").props("dense outlined")
            self._pace.style("width: 200px").on_value_change(self._on_pace)
            self._open = ui.button("Open the camera", on_click=self._on_open).props("unelevated")
            self._take = ui.button("Take a picture", on_click=self._on_take).props("unelevated")
            self._close = ui.button("Close the camera", on_click=self._on_close).props("outline")
        self._camera = BrowserCamera(self._address(), "image/png", on_answer, self._on_ready)
        self._camera.style("max-width: 420px")
        self._show(is_open=False)

    def _address(self) -> str:
        use, label = self._aim()
        category = quote(self._category, safe="")
        return f"/studio/upload/{category}?use={use}&label={quote(label, safe='')}"

    def _on_open(self) -> None:
        self._camera.start()

    def _on_ready(self) -> None:
        self._show(is_open=True)
        self._on_pace()

    def _on_take(self) -> None:
        self._camera.aim(self._address())
        self._camera.take()

    def _on_pace(self) -> None:
        self._camera.aim(self._address())
        self._camera.every(int(self._pace.value))
        self._take.set_enabled(self._pace.value == 0)

    def _on_close(self) -> None:
        self._camera.stop()
        self._show(is_open=False)

    def _show(self, *, is_open: bool) -> None:
        self._open.set_visibility(not is_open)
        self._take.set_visibility(is_open)
        self._close.set_visibility(is_open)
