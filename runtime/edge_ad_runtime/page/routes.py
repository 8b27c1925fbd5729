"""What can be asked of the page's server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from time import monotonic

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.page.metrics import exposition
from edge_ad_runtime.page.pictures import Gallery, live_picture
from edge_ad_runtime.page.state import PageState
from edge_ad_runtime.stream.stream import Stream
from edge_ad_runtime.stream.triggers import request_by_text

_FILES = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_MOST_STREAMS = 16
_LARGEST_BODY = 4096
_PICTURE_SECONDS = 0.1
_EVENT_SECONDS = 0.25


class Routes:
    """The handlers, around what they show."""

    def __init__(self, stream: Stream, state: PageState, gallery: Gallery) -> None:
        """Show a stream."""
        self._shown = stream
        self._state = state
        self._gallery = gallery
        self._names = [camera.name for camera in stream.config.cameras]
        self._streams = 0

    def application(self) -> Starlette:
        """Return the ASGI application, without its guard."""
        files = [Route(f"/{path}", partial(_file, name)) for path, name in _FILES.items()]
        return Starlette(
            routes=[
                *files,
                Route("/status", self.status),
                Route("/camera/{index:int}", self.camera),
                Route("/gallery/{number:int}", self.picture),
                Route("/events", self.events),
                Route("/healthz", self.health),
                Route("/metrics", self.metrics),
                Route("/threshold", self.threshold, methods=["POST"]),
                Route("/trigger", self.trigger, methods=["POST"]),
            ]
        )

    async def status(self, request: Request) -> Response:
        """Everything that the page redraws."""
        cameras = []
        for index, (name, camera) in enumerate(self._state.cameras.items()):
            info = self._shown.info_of(name)
            latest = camera.latest
            cameras.append(
                {
                    "index": index,
                    "name": name,
                    "model": f"{info.method} on {info.category}",
                    "frames": camera.frames,
                    "anomalous": camera.anomalous,
                    "failed": camera.failed,
                    "lost": camera.lost,
                    "alarm": camera.alarm,
                    "seconds_since": round(monotonic() - camera.seen_at, 1),
                    "score": None if latest is None else latest[1].score,
                    "is_anomalous": latest is not None and latest[1].anomalous,
                    "latency_ms": None if latest is None else round(latest[1].latency_ms, 1),
                    "threshold": info.threshold,
                    "score_range": info.score_range,
                    "scores": self._state.scores(name),
                }
            )
        return JSONResponse({"cameras": cameras, "gallery": self._gallery.entries()})

    async def camera(self, request: Request) -> Response:
        """Pictures of a camera as motion JPEG; `contrast` shows fainter heat."""
        index = request.path_params["index"]
        try:
            contrast = float(request.query_params.get("contrast", "1"))
        except ValueError:
            contrast = 0.0
        if index >= len(self._names) or not 0.1 <= contrast <= 10:
            return PlainTextResponse("expected a camera, and a contrast from 0.1 to 10", 404)
        kind = "multipart/x-mixed-replace; boundary=frame"
        return self._stream(self._pictures(self._names[index], contrast), kind)

    async def picture(self, request: Request) -> Response:
        """One picture of the gallery."""
        data = self._gallery.picture(request.path_params["number"])
        if data is None:
            return PlainTextResponse("it is no longer kept", 404)
        return Response(data, media_type="image/jpeg")

    async def events(self, request: Request) -> Response:
        """Events as they come (server-sent events), after the last few."""
        return self._stream(self._events(), "text/event-stream")

    async def health(self, request: Request) -> Response:
        """200 while every camera delivers, else 503."""
        lost = [camera.name for camera in self._state.cameras.values() if camera.lost]
        return JSONResponse({"ok": not lost, "lost": lost}, 503 if lost else 200)

    async def metrics(self, request: Request) -> Response:
        """Counts for Prometheus."""
        return Response(exposition(self._state), media_type="text/plain; version=0.0.4")

    async def threshold(self, request: Request) -> Response:
        """Change the decision limit of a camera's model: `{"camera": ..., "threshold": ...}`."""
        try:
            fields = json.loads(await _body(request))
            camera, threshold = str(fields["camera"]), float(fields["threshold"])
            if camera not in self._names:
                raise DataError(f"there is no camera {camera!r}")
            await run_in_threadpool(
                partial(self._shown.set_threshold, camera, threshold, who="the live page")
            )
        except (ValueError, KeyError, TypeError, DataError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"camera": camera, "threshold": threshold})

    async def trigger(self, request: Request) -> Response:
        """Ask for a verdict: `{"id": ..., "camera": ...}`, both optional."""
        if self._shown.triggers is None:
            return JSONResponse({"error": "this stream scores every frame"}, 409)
        try:
            identity = request_by_text(self._shown.triggers, await _body(request))
        except DataError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"trigger": identity}, 202)

    def _stream(self, content: AsyncIterator[bytes], kind: str) -> Response:
        if self._streams >= _MOST_STREAMS:
            return PlainTextResponse("too many viewers, close one", 503)
        self._streams += 1
        return _Stream(content, kind, self._leave)

    def _leave(self) -> None:
        self._streams -= 1

    async def _pictures(self, name: str, contrast: float) -> AsyncIterator[bytes]:
        shown = None
        while True:
            latest = self._state.cameras[name].latest
            if latest is not None and latest is not shown:
                shown = latest
                info = self._shown.info_of(name)
                data = await run_in_threadpool(live_picture, *latest, info, contrast=contrast)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                # Browsers show a part when the next one begins.
                yield head.encode() + data + b"\r\n"
            await asyncio.sleep(_PICTURE_SECONDS)

    async def _events(self) -> AsyncIterator[bytes]:
        last = 0
        yield b"retry: 2000\n\n"
        while True:
            for number, event in self._state.events_after(last):
                last = number
                yield f"id: {number}\ndata: {json.dumps(event.fields())}\n\n".encode()
            await asyncio.sleep(_EVENT_SECONDS)


class _Stream(StreamingResponse):
    """A response without end, that says when its reader has gone."""

    def __init__(self, content: AsyncIterator[bytes], kind: str, leave: Callable[[], None]) -> None:
        super().__init__(content, media_type=kind)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _file(name: str, request: Request) -> Response:
    data = (Path(__file__).parent / name).read_bytes()
    return Response(data, media_type=_TYPES[name.rpartition(".")[2]])


async def _body(request: Request) -> str:
    """Return the body of a POST of JSON; browsers ask before they send one from elsewhere.

    Raises:
        DataError: it is something else, or long.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise DataError("expected the content type application/json")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _LARGEST_BODY:
            raise DataError(f"expected at most {_LARGEST_BODY} bytes")
    return data.decode(errors="replace")
