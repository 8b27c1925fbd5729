"""What pages fetch besides themselves: pictures, uploads, downloads, and their own files."""

import secrets
from pathlib import Path

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from edge_ad.project.bundle import CONFIG_FILE, Device, stream_config, write_bundle
from edge_ad.studio.picture_routes import data_routes, verdict_routes
from edge_ad.studio.state import Studio, model_path
from edge_ad.studio.upload_routes import upload_routes
from edge_ad_runtime.errors import EdgeAdError

_STATIC = Path(__file__).parent / "static"


def router(studio: Studio) -> APIRouter:
    """Return the routes of a Studio."""
    routes = APIRouter()
    for part in (data_routes, verdict_routes, upload_routes, _download_routes):
        routes.include_router(part(studio))
    routes.routes.append(Mount("/studio/static", StaticFiles(directory=_STATIC)))
    return routes


def _download_routes(studio: Studio) -> APIRouter:
    """Return the routes of what a device gets."""
    routes = APIRouter()

    @routes.get("/studio/download/{export}/{what}")
    async def download(
        export: str, what: str, camera: str = "camera", source: str = "0"
    ) -> Response:
        def make() -> Response:
            job = studio.queue.job(export)
            model = model_path(job)
            target = str(job.about.get("target", "cpu"))
            device = Device(camera=camera, source=source, target=target)
            if what == "model":
                return FileResponse(model, filename=model.name)
            if what == "config":
                headers = {"Content-Disposition": f'attachment; filename="{CONFIG_FILE}"'}
                text = stream_config(model.name, device)
                return Response(text, media_type="application/toml", headers=headers)
            # One for each request: two people may name the camera differently at once.
            bundle = studio.uploads / f"{secrets.token_hex(8)}.zip"
            write_bundle(model, bundle, device, studio.wheels)
            return _FetchedOnce(bundle, filename=f"{model.stem}-bundle.zip")

        try:
            return await run_in_threadpool(make)
        except EdgeAdError as error:
            return JSONResponse({"error": str(error)}, 400)

    return routes


class _FetchedOnce(FileResponse):
    """A file that is deleted when it has been sent, or its reader has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)
