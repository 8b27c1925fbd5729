"""The addresses of pictures: thumbnails, whole ones, masks, heat maps, and what cameras see."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from edge_ad.project.thumbnails import shrunk
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import DataError, EdgeAdError
from edge_ad_runtime.model.overlay import encode_jpeg, lay_heat
from edge_ad_runtime.model.picture_file import read_frame, read_mask

SCREEN_SIDE = 1400
"""Pixels of a picture's longer side, at most, on a page."""

_PREVIEW_SIDE = 900
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_GONE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 90"><rect width="120" height="90" '
    b'fill="#eceff1"/><text x="60" y="49" text-anchor="middle" font-family="sans-serif" '
    b'font-size="11" fill="#5a6670">not readable</text></svg>'
)


def data_routes(studio: Studio) -> APIRouter:
    """Return the routes of the pictures of products, and of what marks them."""
    routes = APIRouter()

    @routes.get("/studio/thumbnail/{category}/{key:path}")
    async def thumbnail(category: str, key: str) -> Response:
        return await _small(studio, lambda: studio.folder(category).picture(key).path)

    @routes.get("/studio/picture/{category}/{key:path}")
    async def picture(category: str, key: str) -> Response:
        def draw() -> bytes:
            frame = read_frame(studio.folder(category).picture(key).path)
            return encode_jpeg(shrunk(frame, SCREEN_SIDE), quality=90)

        return await _drawn(draw)

    @routes.get("/studio/mask/{category}/{key:path}")
    async def mask(category: str, key: str) -> Response:
        def draw() -> bytes:
            path = studio.folder(category).picture(key).mask
            if path is None:
                return b""
            defective = read_mask(path)
            layer = np.zeros((*defective.shape, 4), np.uint8)
            layer[defective] = (27, 36, 224, 120)
            return cv2.imencode(".png", layer)[1].tobytes()

        return await _drawn(draw, "image/png")

    @routes.get("/studio/marked/{opened}/{index}.jpg")
    async def marked(opened: str, index: int) -> Response:
        def find() -> Path:
            paths = studio.marked.get(opened, ())
            if not 0 <= index < len(paths):
                raise DataError("this folder of marked parts is no longer open: show it again")
            return paths[index]

        return await _small(studio, find)

    return routes


def verdict_routes(studio: Studio) -> APIRouter:
    """Return the routes of what trainings and model files say of pictures, and of live ones."""
    routes = APIRouter()

    @routes.get("/studio/of-run/{job}/{index}.jpg")
    async def of_run(job: str, index: int) -> Response:
        return await _small(studio, lambda: _path_in_run(studio, job, index))

    @routes.get("/studio/heat/{job}/{index}.jpg")
    async def heat(job: str, index: int, low: float, high: float, plain: bool = False) -> Response:
        def draw() -> bytes:
            path = _path_in_run(studio, job, index)
            shown, values = studio.map_of(studio.queue.job(job), path)
            if not plain:
                # As `color_range` has it, so that `high` is the hottest colour.
                shown = lay_heat(shown, values, low, low + (high - low) / 1.5, outline=False)
            return encode_jpeg(shown, quality=88)

        return await _drawn(draw)

    @routes.get("/studio/live/{session}.jpg")
    async def live(session: str) -> Response:
        found = studio.sessions.get(session)
        return await _drawn(found.picture if found else lambda: b"", keep=False)

    @routes.get("/studio/camera/{session}.jpg")
    async def camera(session: str) -> Response:
        found = studio.cameras.get(session)

        def draw() -> bytes:
            frame = found.newest[1] if found else None
            return b"" if frame is None else encode_jpeg(shrunk(frame, _PREVIEW_SIDE), quality=80)

        return await _drawn(draw, keep=False)

    return routes


async def _small(studio: Studio, find: Callable[[], Path]) -> Response:
    """Answer with the thumbnail of a picture."""
    try:
        small = await run_in_threadpool(lambda: studio.thumbnails.of(find()))
    except DataError:
        return Response(_GONE, media_type="image/svg+xml")
    return FileResponse(small, headers=_FOREVER)


async def _drawn(
    draw: Callable[[], bytes], media_type: str = "image/jpeg", *, keep: bool = True
) -> Response:
    try:
        data = await run_in_threadpool(draw)
    except EdgeAdError:
        return Response(_GONE, media_type="image/svg+xml")
    if not data:
        return Response(status_code=404)
    return Response(data, media_type=media_type, headers=_FOREVER if keep else None)


def _path_in_run(studio: Studio, job: str, index: int) -> Path:
    """Return a picture of a run: first those of the test, then the fitted ones.

    Raises:
        DataError: there is none of this number.
    """
    run = studio.run(studio.queue.job(job))
    paths = [item.sample.path for item in run.scored] + [item.path for item in run.good]
    if not 0 <= index < len(paths):
        raise DataError(f"expected a number below {len(paths)}, got {index}")
    return paths[index]
