"""What pages fetch besides themselves: pictures, heat maps, uploads and downloads."""

import asyncio
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from edge_ad.project.bundle import CONFIG_FILE, Device, stream_config, write_bundle
from edge_ad.project.folder import Use
from edge_ad.project.intake import Intake, take_pictures
from edge_ad.project.thumbnails import shrunk
from edge_ad.studio.state import Studio, model_path
from edge_ad_runtime.errors import DataError, EdgeAdError
from edge_ad_runtime.model.overlay import encode_jpeg, lay_heat
from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES, read_frame, read_mask

MOST_UPLOAD_BYTES = 2**30
"""Of one file."""

_SCREEN_SIDE = 1400
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_GONE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 90"><rect width="120" height="90" '
    b'fill="#eceff1"/><text x="60" y="49" text-anchor="middle" font-family="sans-serif" '
    b'font-size="11" fill="#5a6670">not readable</text></svg>'
)
_STATIC = Path(__file__).parent / "static"


def router(studio: Studio) -> APIRouter:
    """Return the routes of a Studio."""
    routes = APIRouter()

    @routes.get("/studio/thumbnail/{category}/{key:path}")
    async def thumbnail(category: str, key: str) -> Response:
        def find() -> Path:
            return studio.thumbnails.of(studio.folder(category).picture(key).path)

        try:
            return FileResponse(await run_in_threadpool(find), headers=_FOREVER)
        except DataError:
            return Response(_GONE, media_type="image/svg+xml")

    @routes.get("/studio/picture/{category}/{key:path}")
    async def picture(category: str, key: str) -> Response:
        def draw() -> bytes:
            frame = read_frame(studio.folder(category).picture(key).path)
            return encode_jpeg(shrunk(frame, _SCREEN_SIDE), quality=90)

        return await _drawn(draw)

    @routes.get("/studio/of-run/{job}/{index}.jpg")
    async def of_run(job: str, index: int) -> Response:
        def find() -> Path:
            return studio.thumbnails.of(_path_in_run(studio, job, index))

        try:
            return FileResponse(await run_in_threadpool(find), headers=_FOREVER)
        except DataError:
            return Response(_GONE, media_type="image/svg+xml")

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

    @routes.put("/studio/upload/{category}")
    async def upload(
        request: Request, category: str, use: str = "train", label: str = "good"
    ) -> Response:
        name = _file_name(unquote(request.headers.get("x-file-name", "")))
        temporary = studio.uploads / f"{secrets.token_hex(8)}{Path(name).suffix.lower()[:8]}"
        try:
            folder = studio.folder(category)
            if Path(name).suffix.lower() not in (*PICTURE_SUFFIXES, ".zip"):
                raise DataError(
                    f"{name} is no PNG, JPEG, BMP, TIFF or WebP file and no ZIP: convert it first"
                )
            await _receive(request, temporary, name)

            def take() -> Intake:
                # By its own name, for messages and for the file that is made of it.
                place = temporary.with_suffix("") / name
                try:
                    place.parent.mkdir()
                    temporary.rename(place)
                    chosen: Use = "test" if use == "test" else "train"
                    return take_pictures(place, folder, use=chosen, label=label)
                except OSError as error:
                    raise _cannot_store(name, error) from error
                finally:
                    shutil.rmtree(place.parent, ignore_errors=True)

            intake = await run_in_threadpool(take)
        except EdgeAdError as error:
            status = 413 if isinstance(error, _TooLargeError) else 400
            return JSONResponse({"error": str(error)}, status, headers={"Connection": "close"})
        finally:
            with suppress(OSError):
                temporary.unlink()
        return JSONResponse({"taken": len(intake.taken), "refused": intake.refused})

    @routes.put("/studio/score/{session}")
    async def score(request: Request, session: str) -> Response:
        found = studio.sessions.get(session)
        temporary = studio.uploads / f"{secrets.token_hex(8)}.jpg"
        try:
            if found is None:
                raise DataError("this trial has ended: press Start again")
            await _receive(request, temporary, "the picture")
            result = await run_in_threadpool(lambda: found.score(read_frame(temporary)))
        except EdgeAdError as error:
            return JSONResponse({"error": str(error)}, 400)
        finally:
            temporary.unlink(missing_ok=True)
        return JSONResponse({"anomalous": result.anomalous, "score": result.score})

    @routes.get("/studio/live/{session}.jpg")
    async def live(session: str) -> Response:
        found = studio.sessions.get(session)
        return await _drawn(found.picture if found else lambda: b"", keep=False)

    @routes.get("/studio/camera/{session}.jpg")
    async def camera(session: str) -> Response:
        found = studio.cameras.get(session)

        def draw() -> bytes:
            frame = found.newest[1] if found else None
            return b"" if frame is None else encode_jpeg(shrunk(frame, 900), quality=80)

        return await _drawn(draw, keep=False)

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

    @routes.get("/studio/marked/{category}")
    async def marked(category: str, path: str) -> Response:
        def find() -> Path:
            if Path(path) not in studio.marked:
                raise DataError("expected a picture of the folder that was opened")
            return studio.thumbnails.of(Path(path))

        try:
            return FileResponse(await run_in_threadpool(find))
        except DataError:
            return Response(_GONE, media_type="image/svg+xml")

    @routes.get("/studio/download/{export}/{what}")
    async def download(
        export: str, what: str, camera: str = "camera", source: str = "0"
    ) -> Response:
        def make() -> Path | str:
            job = studio.queue.job(export)
            model = model_path(job)
            device = Device(camera=camera, source=source)
            if what == "model":
                return model
            if what == "config":
                return stream_config(model.name, device)
            bundle = job.folder / f"{model.stem}-bundle.zip"
            write_bundle(model, bundle, device, studio.wheels)
            return bundle

        try:
            made = await run_in_threadpool(make)
        except EdgeAdError as error:
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(made, str):
            headers = {"Content-Disposition": f'attachment; filename="{CONFIG_FILE}"'}
            return Response(made, media_type="application/toml", headers=headers)
        return FileResponse(made, filename=made.name)

    routes.routes.append(Mount("/studio/static", StaticFiles(directory=_STATIC)))
    return routes


class _TooLargeError(DataError):
    """A file that is larger than what is taken."""


async def _receive(request: Request, to: Path, name: str) -> None:
    """Write a body to disk as it comes; one that is too large is refused before it is read.

    Raises:
        DataError: it is too large, cannot be written, or breaks off.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and float(announced) > MOST_UPLOAD_BYTES:
        raise _too_large(name)
    written = 0
    try:
        with to.open("xb") as file:
            async for part in request.stream():
                written += len(part)
                if written > MOST_UPLOAD_BYTES:
                    raise _too_large(name)
                await asyncio.to_thread(file.write, part)
    except ClientDisconnect as error:
        raise DataError(f"{name} did not arrive whole: send it again") from error
    except OSError as error:
        raise _cannot_store(name, error) from error


def _cannot_store(name: str, error: OSError) -> DataError:
    return DataError(f"cannot store {name}: {error.strerror or error}: free some space")


def _file_name(text: str) -> str:
    """Return the last part of a path that a browser gave, fit for every file system."""
    path = Path("".join(letter for letter in text if letter.isprintable()))
    return f"{path.stem[:60]}{path.suffix[:8]}"


def _too_large(name: str) -> DataError:
    return _TooLargeError(
        f"{name or 'the file'} is larger than the {MOST_UPLOAD_BYTES // 2**30} GiB that are taken "
        "at once: split it, or give its folder on this machine"
    )


async def _drawn(
    draw: Callable[[], bytes], media_type: str = "image/jpeg", *, keep: bool = True
) -> Response:
    try:
        data = await run_in_threadpool(draw)
        if data:
            headers = _FOREVER if keep else None
            return Response(data, media_type=media_type, headers=headers)
        return Response(status_code=404)
    except EdgeAdError:
        return Response(_GONE, media_type="image/svg+xml")


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
