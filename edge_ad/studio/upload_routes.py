"""Files that a browser sends: pictures and ZIPs for a product, pictures for a trial."""

import asyncio
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from edge_ad.project.folder import CategoryFolder, Use
from edge_ad.project.intake import Intake, take_pictures
from edge_ad.studio.state import Studio
from edge_ad_runtime.errors import DataError, EdgeAdError
from edge_ad_runtime.model.picture_file import PICTURE_SUFFIXES, read_frame

MOST_UPLOAD_BYTES = 2**30
"""Of one file."""


def upload_routes(studio: Studio) -> APIRouter:
    """Return the routes of what comes in."""
    routes = APIRouter()

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
                    f"{name} is not a PNG, JPEG, BMP, TIFF or WebP file, nor a ZIP: convert it "
                    "first"
                )
            await _receive(request, temporary, name)
            chosen: Use = "test" if use == "test" else "train"
            intake = await run_in_threadpool(_take, temporary, name, folder, chosen, label)
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
            with suppress(OSError):
                temporary.unlink()
        return JSONResponse({"anomalous": result.anomalous, "score": result.score})

    return routes


class _TooLargeError(DataError):
    """A file that is larger than what is taken."""


def _take(file: Path, name: str, folder: CategoryFolder, use: Use, label: str) -> Intake:
    """Take a file in under its own name, for messages and for the picture that is made of it."""
    place = file.with_suffix("") / name
    try:
        place.parent.mkdir()
        file.rename(place)
        return take_pictures(place, folder, use=use, label=label)
    except OSError as error:
        raise _cannot_store(name, error) from error
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)


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
    return DataError(
        f"cannot store {name}: {error.strerror or error}: check the permissions and the space on "
        "the disk"
    )


def _file_name(text: str) -> str:
    """Return the last part of a path that a browser gave, fit for every file system."""
    path = Path("".join(letter for letter in text if letter.isprintable()))
    return f"{path.stem[:60]}{path.suffix[:8]}"


def _too_large(name: str) -> DataError:
    return _TooLargeError(
        f"{name or 'the file'} is larger than the {MOST_UPLOAD_BYTES // 2**30} GiB that are taken "
        "at once: split it, or give its folder on this machine"
    )
