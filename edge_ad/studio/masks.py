"""Draw the defective pixels of a picture: rectangle, brush and eraser."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
from nicegui import events, ui

from edge_ad.project.folder import CategoryFolder, Picture
from edge_ad.project.masks import Point, Shape, draw_mask
from edge_ad.studio.gallery import mask_address, picture_address
from edge_ad.studio.layout import complain, say
from edge_ad.studio.picture_routes import SCREEN_SIDE
from edge_ad_runtime.errors import EdgeAdError
from edge_ad_runtime.model.picture_file import read_frame, read_mask

_RED = "#e0241b"
_BRUSH = 0.03


class MaskEditor:
    """A dialog about one picture; it is made when it opens."""

    def __init__(
        self, folder: CategoryFolder, picture: Picture, changed: Callable[[], Awaitable[None]]
    ) -> None:
        """Draw the dialog.

        Args:
            folder: of the category.
            picture: of a defective part.
            changed: is called when a mask was written.
        """
        self._folder, self._picture, self._changed = folder, picture, changed
        self._shapes: list[Shape] = []
        self._drawing: list[Point] = []
        self._fresh = False  # without what was drawn earlier
        self._size: tuple[int, int] = (1, 1)
        with ui.dialog() as self._dialog, ui.card().style("max-width: 1000px; width: 88vw"):
            ui.label(f"Mark what is defective in {picture.path.name}").style("font-weight: 600")
            with ui.row().classes("w-full items-center"):
                self._tool = ui.toggle(
                    {"rectangle": "Rectangle", "brush": "Brush", "eraser": "Eraser"},
                    value="rectangle",
                ).props("no-caps unelevated")
                ui.label("Width of the brush").classes("small")
                self._width = ui.slider(min=0.005, max=0.12, step=0.005, value=_BRUSH)
                self._width.style("width: 150px")
            self._image = ui.interactive_image(
                picture_address(folder.name, picture),
                on_mouse=self._on_mouse,
                events=["mousedown", "mousemove", "mouseup"],
                sanitize=False,
            )
            self._image.style("max-height: 58vh; align-self: center; cursor: crosshair")
            with ui.row().classes("w-full justify-between"):
                with ui.row():
                    ui.button("Undo", on_click=self._undo).props("outline")
                    ui.button("Clear", on_click=self._clear).props("outline")
                with ui.row():
                    ui.button("Cancel", on_click=self._dialog.close).props("outline")
                    ui.button("Save the mask", on_click=self._save).props("unelevated")

    async def open(self) -> None:
        """Show the picture with its mask."""
        try:
            frame = await asyncio.to_thread(read_frame, self._picture.path)
        except EdgeAdError as error:
            complain(str(error))
            return
        self._size = (frame.shape[0], frame.shape[1])
        self._show()
        self._dialog.open()

    def _on_mouse(self, event: events.MouseEventArguments) -> None:
        height, width = self._shown_size()
        x, y = event.image_x / width, event.image_y / height
        point = (min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0))
        ends = event.type == "mouseup"
        if event.type == "mousemove" and not event.buttons:
            ends = True  # the button was released beside the picture
        elif event.type == "mousedown":
            self._shapes, self._drawing = self._drawn, [point]
        elif self._drawing:
            self._drawing.append(point)
        if ends:
            self._shapes, self._drawing = self._drawn, []
        self._show()

    @property
    def _drawn(self) -> list[Shape]:
        """What is seen, and what will be saved: also what is being drawn."""
        return [*self._shapes, *([self._shape()] if self._drawing else [])]

    def _shape(self) -> Shape:
        if self._tool.value == "rectangle":
            return Shape(points=(self._drawing[0], self._drawing[-1]))
        return Shape(
            points=tuple(self._drawing),
            width=float(self._width.value),
            erases=self._tool.value == "eraser",
        )

    def _shown_size(self) -> tuple[float, float]:
        """Return the size of the picture as the browser got it."""
        scale = min(1.0, SCREEN_SIDE / max(self._size))
        return max(1, round(self._size[0] * scale)), max(1, round(self._size[1] * scale))

    def _show(self) -> None:
        height, width = self._shown_size()
        parts = []
        if self._picture.mask is not None and not self._fresh:
            address = mask_address(self._folder.name, self._picture)
            parts.append(
                f'<image href="{address}" width="{width}" height="{height}" '
                'preserveAspectRatio="none"/>'
            )
        parts += [_svg(shape, width, height) for shape in self._drawn]
        self._image.set_content("".join(parts))

    def _undo(self) -> None:
        self._shapes, self._drawing = self._drawn[:-1], []
        self._show()

    def _clear(self) -> None:
        self._shapes, self._drawing, self._fresh = [], [], True
        self._show()

    async def _save(self) -> None:
        shapes = self._drawn

        def save() -> None:
            base = None
            if self._picture.mask is not None and not self._fresh:
                base = read_mask(self._picture.mask)
                if base.shape != self._size:
                    base = np.zeros(self._size, np.bool_)
            mask = draw_mask(self._size, shapes, base)
            self._folder.set_mask(self._picture.key, mask)

        try:
            await asyncio.to_thread(save)
        except EdgeAdError as error:
            complain(str(error))
            return
        say("The mask is saved.")
        self._dialog.close()
        await self._changed()


def _svg(shape: Shape, width: float, height: float) -> str:
    points = [(x * width, y * height) for x, y in shape.points]
    color = "#ffffff" if shape.erases else _RED
    if shape.width == 0:
        (x, y), (u, v) = points[0], points[-1]
        return (
            f'<rect x="{min(x, u):.1f}" y="{min(y, v):.1f}" width="{abs(u - x):.1f}" '
            f'height="{abs(v - y):.1f}" fill="{color}" fill-opacity="0.45" stroke="{color}" '
            'stroke-width="2"/>'
        )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-opacity="0.5" '
        f'stroke-width="{shape.width * width:.1f}" stroke-linecap="round" stroke-linejoin="round"/>'
    )
