"""What can be asked of the page's server, and how the body of a request is read."""

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from edge_ad_runtime.errors import ConfigError, DataError
from edge_ad_runtime.events import Event
from edge_ad_runtime.page.marks import MARKS, Marks
from edge_ad_runtime.page.parts import Drawing, Part
from edge_ad_runtime.page.state import Known, News, PageState, exposition
from edge_ad_runtime.page.viewers import Turns, Viewers
from edge_ad_runtime.stream.stream import Stream
from edge_ad_runtime.stream.triggers import Triggers, request_by_text

_STATIC = Path(__file__).parent / "static"
_LARGEST_BODY = 4096
_LONGEST_NAME = 80
_BODY_SECONDS = 5.0
_WORDS = {"false alarm": "a false alarm", "missed": "a missed defect"}


class Routes:
    """The handlers, around what they show and change.

    Attributes:
        viewers: everyone who has the page open.
    """

    def __init__(
        self,
        stream: Stream,
        state: PageState,
        drawing: Drawing,
        marks: Marks,
        *,
        most_viewers: int,
    ) -> None:
        """Show a stream.

        Args:
            stream: whose limits can be changed, and which can be sent triggers.
            state: what there is to see.
            drawing: makes the pictures.
            marks: save the parts whose verdict a person calls wrong.
            most_viewers: how many may look at the same time.
        """
        self._stream = stream
        self._state = state
        self._drawing = drawing
        self._marks = marks
        self._marking = threading.Lock()
        self._news = News(stream, state)
        self.viewers = Viewers(state, drawing, self._news, most=most_viewers)

    def application(self) -> Starlette:
        """Return the ASGI application, without its guard."""
        return Starlette(
            routes=[
                Route("/status", self.status),
                Route("/events", self.events),
                Route("/part/{id}", self.part),
                Route("/part/{id}/{picture}", self.picture),
                Route("/healthz", self.health),
                Route("/metrics", self.metrics),
                Route("/threshold", self.threshold, methods=["POST"]),
                Route("/mark", self.mark, methods=["POST"]),
                Route("/shift", self.shift, methods=["POST"]),
                _trigger_route(self._stream.triggers),
                Mount("/", StaticFiles(directory=_STATIC, html=True)),
            ],
            exception_handlers={DataError: _refused},
            middleware=[Middleware(Turns, state=self._state, drawing=self._drawing)],
        )

    async def status(self, request: Request) -> Response:
        """Everything but the pictures, as the page shows it."""
        news = self._news.since(Known())
        for camera in news["cameras"]:
            camera["scores"] = [part["score"] for part in camera["parts"]]
        return JSONResponse(news)

    async def events(self, request: Request) -> Response:
        """Verdicts, counts and events as they come: server-sent events, see `Viewers.messages`."""
        return _Endless(self.viewers, request.client.host if request.client else "")

    async def part(self, request: Request) -> Response:
        """One part: verdict and outlines, as in the message `verdict`."""
        part = self._state.parts.get(request.path_params["id"])
        pictures = None if part is None else await self._drawing.pictures(part)
        if part is None or pictures is None:
            return JSONResponse({"error": "this part is no longer kept"}, 404)
        return JSONResponse(part.fields() | {"outlines": pictures.outlines})

    async def picture(self, request: Request) -> Response:
        """One picture of a part: `plain.jpg`, `heat.png` or `small.jpg`."""
        part = self._state.parts.get(request.path_params["id"])
        name = request.path_params["picture"]
        if name not in ("plain.jpg", "heat.png", "small.jpg"):
            return PlainTextResponse("expected plain.jpg, heat.png or small.jpg", 404)
        pictures = None if part is None else await self._drawing.pictures(part)
        if pictures is None:
            return PlainTextResponse("this part is no longer kept", 404)
        found = {
            "plain.jpg": pictures.plain,
            "heat.png": pictures.heat,
            "small.jpg": pictures.small,
        }
        return Response(found[name], media_type="image/png" if name == "heat.png" else "image/jpeg")

    async def health(self, request: Request) -> Response:
        """200 while every camera delivers, else 503."""
        lost = [camera.name for camera in self._state.cameras.values() if camera.lost]
        return JSONResponse({"ok": not lost, "lost": lost}, 503 if lost else 200)

    async def metrics(self, request: Request) -> Response:
        """Counts for Prometheus."""
        return Response(exposition(self._state), media_type="text/plain; version=0.0.4")

    async def threshold(self, request: Request) -> Response:
        """Change the limit of a camera: `{"camera": ..., "threshold": ..., "who": ...}`.

        A threshold of null gives the camera back the limit of its model.
        """
        fields = await _json_fields(request)
        camera, who = self._camera(fields), _who_asks(request, fields)
        threshold = fields.get("threshold", "nothing")
        if threshold is None:
            await run_in_threadpool(self._stream.reset_threshold, camera, who=who)
        else:
            await run_in_threadpool(self._stream.set_threshold, camera, _finite(threshold), who=who)
        return JSONResponse({"camera": camera, "threshold": self._stream.info_of(camera).threshold})

    async def mark(self, request: Request) -> Response:
        """Say that a verdict was wrong: `{"id": ..., "mark": ..., "who": ...}`.

        The mark is `false alarm` or `missed`; null takes it back.
        """
        fields = await _json_fields(request)
        part, mark = self._state.parts.get(str(fields.get("id"))), fields.get("mark")
        if part is None:
            raise ConfigError("this part is no longer kept: mark a part soon after its verdict")
        if mark is not None and mark not in MARKS:
            raise ConfigError(f"expected one of {', '.join(MARKS)} as mark, or null")
        path = await run_in_threadpool(self._mark, part, mark, _who_asks(request, fields))
        return JSONResponse({"id": part.id, "mark": mark, "path": path and str(path)})

    def _mark(self, part: Part, mark: str | None, who: str) -> Path | None:
        """Save a mark or take it back, and tell every output of it.

        Raises:
            DataError: the frame has gone, or the files cannot be written.
        """
        number, camera = part.captured.number, part.captured.camera
        message = f"the mark of frame {number} of {camera} was taken back by {who}"
        if mark is not None:
            message = f"frame {number} of {camera} was marked as {_WORDS[mark]} by {who}"
        details: dict[str, object] = {
            "frame": number,
            "score": part.result.score,
            "mark": mark,
            "who": who,
        }
        # Two people may mark one part at once: it keeps one mark, that of the last event.
        with self._marking:
            path = self._marks.put(part, mark, who)
            if path is not None:
                details["picture"] = str(path)
            self._stream.delivery.event(
                Event(kind="verdict marked", message=message, camera=camera, details=details)
            )
        return path

    async def shift(self, request: Request) -> Response:
        """Start counting from zero: `{"camera": ...}`; without a camera at all of them."""
        fields = await _json_fields(request)
        names = [self._camera(fields)] if "camera" in fields else list(self._state.cameras)
        await run_in_threadpool(self._begin_shift, names, _who_asks(request, fields))
        return JSONResponse({"cameras": names})

    def _begin_shift(self, names: Sequence[str], who: str) -> None:
        """Reset the counts of cameras, and report those up to now on every output."""
        for name in names:
            ended = self._state.begin_shift(name)
            message = f"the counts at {name} were set back to zero by {who}"
            self._stream.delivery.event(
                Event(
                    kind="shift began",
                    message=message,
                    camera=name,
                    details={"ended": ended.fields(), "who": who},
                )
            )

    def _camera(self, fields: dict[str, Any]) -> str:
        """Return the camera that a request names.

        Raises:
            ConfigError: there is no such camera.
        """
        name = fields.get("camera")
        if not isinstance(name, str) or name not in self._state.cameras:
            known = ", ".join(self._state.cameras)
            raise ConfigError(f"expected one of {known} as camera, got {json.dumps(name)[:80]}")
        return name


def trigger_application(triggers: Triggers) -> Starlette:
    """Return an ASGI application, without its guard, that takes triggers and nothing else."""
    return Starlette(routes=[_trigger_route(triggers)], exception_handlers={DataError: _refused})


def _trigger_route(triggers: Triggers | None) -> Route:
    """Return the route by which a frame is asked for: `{"id": ..., "camera": ...}`, if at all."""

    async def trigger(request: Request) -> Response:
        if triggers is None:
            return JSONResponse({"error": "this stream scores every frame"}, 409)
        identity = request_by_text(triggers, await _text_body(request))
        return JSONResponse({"trigger": identity}, 202)

    return Route("/trigger", trigger, methods=["POST"])


class _Endless(StreamingResponse):
    """The messages of one viewer, whose place is free again when its reader has gone."""

    def __init__(self, viewers: Viewers, client: str) -> None:
        self._viewers = viewers
        self._viewer = viewers.join(client)
        super().__init__(viewers.messages(self._viewer), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["endless"] = True  # see `Connection` in server.py
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._viewers.leave(self._viewer)


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _finite(value: object) -> float:
    """Return a finite number.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    raise ConfigError(f"expected a finite number as threshold, got {json.dumps(value)[:80]}")


async def _json_fields(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        ConfigError: it is something else.
    """
    try:
        fields = json.loads(await _text_body(request))
        # Half of a surrogate pair is JSON, but no text: it could not be written anywhere.
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError("expected a JSON object in the body of the request") from error
    if not isinstance(fields, dict):
        raise ConfigError("expected a JSON object in the body of the request")
    return fields


async def _text_body(request: Request) -> str:
    """Return the body of a POST of JSON; browsers ask before they send one from elsewhere.

    Raises:
        ConfigError: it is something else, long, or slow to come.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ConfigError("expected the content type application/json")
    try:
        return (await asyncio.wait_for(_read_body(request), _BODY_SECONDS)).decode()
    except ClientDisconnect as error:
        raise ConfigError("expected the whole body, the client has gone") from error
    except asyncio.TimeoutError as error:
        raise ConfigError(f"expected the whole body within {_BODY_SECONDS:g} s") from error
    except UnicodeDecodeError as error:
        raise ConfigError("expected a body in UTF-8") from error


async def _read_body(request: Request) -> bytes:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _LARGEST_BODY:
            raise ConfigError(f"expected at most {_LARGEST_BODY} bytes")
    return data


def _who_asks(request: Request, fields: dict[str, Any]) -> str:
    """Return who asks, for the event log: the name given, which nobody has proven, and where."""
    name = " ".join(str(fields.get("who") or "").split())[:_LONGEST_NAME]
    address = request.client.host if request.client else "an unknown address"
    return f"{name or 'somebody'} at {address}"
