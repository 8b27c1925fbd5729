"""Everyone who has the page open: their places, what each is sent, and how often."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, thread_time

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_ad_runtime.outputs.base import event_fields
from edge_ad_runtime.page.parts import Drawing, Part
from edge_ad_runtime.page.state import Known, News, PageState

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.04
_STATUS_SECONDS = 0.5
_SHARE, _SHARE_BEHIND = 0.2, 0.04
_MOST_CREDIT_SECONDS = 0.3

_ANSWERS_SHARE, _ANSWERS_SHARE_BEHIND = 0.3, 0.1
"""More than enough for pages that ask once for each part that was announced to them."""

_LONGEST_WAIT_SECONDS = 5.0
_AT_ONCE = ("/healthz", "/metrics")
"""Asked by watchdogs now and then. What changes something, or is a trigger, is a POST."""

_MOST_PER_CLIENT = 8


@dataclass(eq=False)
class Viewer:
    """One open page: where it is, and whether its place went to another."""

    client: str
    dismissed: bool = False


class Viewers:
    """Sends every viewer the same, from one drawing of each part.

    New pictures come as fast as parts do, while drawing and sending take no more than a fifth of a
    processor core, and much less while the inspection skips frames for lack of time: more viewers
    mean fewer pictures for each of them, never fewer verdicts. Without viewers nothing is drawn.
    """

    def __init__(
        self,
        state: PageState,
        drawing: Drawing,
        news: News,
        *,
        most: int,
    ) -> None:
        """Start without viewers.

        Args:
            state: what there is to see.
            drawing: makes the pictures.
            news: describes the cameras.
            most: how many may look at the same time.
        """
        self._state = state
        self._drawing = drawing
        self._cameras = news
        self._most = most
        self._viewers: list[Viewer] = []
        self._shown: dict[str, tuple[Part, bytes]] = {}
        self._news = asyncio.Event()
        self._publishing: asyncio.Task[None] | None = None
        self._closing = False

    def join(self, client: str) -> Viewer:
        """Give a viewer a place.

        Nobody is locked out, and screens that have been open for long stay on: when there is no
        place left, the viewer who came last gives way, of the same client if that has many, else of
        the client that has most.
        """
        clients = [viewer.client for viewer in self._viewers]
        if clients.count(client) >= _MOST_PER_CLIENT:
            self._dismiss_last(client)
        elif len(clients) >= self._most:
            self._dismiss_last(max(reversed(clients), key=clients.count))
        viewer = Viewer(client)
        self._viewers.append(viewer)
        self._keep_publishing()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Give a place back."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)

    def close(self) -> None:
        """Send nothing more, within half a second; may be called from any thread."""
        self._closing = True

    async def messages(self, viewer: Viewer) -> AsyncIterator[bytes]:
        """Yield server-sent events without end: of a viewer who reads slowly, the newest only.

        `verdict`: the newest verdict of a camera, with the id of its pictures. `status`: counts,
        limits and history of all cameras. Without a name: an event of the stream, first the last
        few. `dismissed`: the place went to another viewer.
        """
        last_event, status_at = 0, -_STATUS_SECONDS
        known = Known()
        seen: dict[str, Part] = {}
        yield b"retry: 2000\n\n"
        while not (viewer.dismissed or self._closing):
            self._keep_publishing()
            news = self._news
            for number, event in self._state.events_after(last_event):
                # What the event has changed follows at once.
                last_event, status_at = number, -_STATUS_SECONDS
                yield _message(None, event_fields(event))
            if monotonic() - status_at >= _STATUS_SECONDS:
                status_at = monotonic()
                yield _message("status", self._cameras.since(known))
            for camera, (part, message) in list(self._shown.items()):
                if seen.get(camera) is not part:
                    seen[camera] = part
                    yield message
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(news.wait(), _STATUS_SECONDS)
        if viewer.dismissed:
            yield _message("dismissed", {})

    def _dismiss_last(self, client: str) -> None:
        viewer = next(item for item in reversed(self._viewers) if item.client == client)
        viewer.dismissed = True
        self._viewers.remove(viewer)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _keep_publishing(self) -> None:
        """Begin to draw, also again after a part that could not be drawn."""
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish())
            self._publishing.add_done_callback(_log_fault)

    async def _publish(self) -> None:
        """Draw the newest part of each camera and tell the viewers, while there are any."""
        pace = Pace(self._state, self._drawing, _SHARE, _SHARE_BEHIND)
        while self._viewers and not self._closing:
            if pace.allows() and await self._draw_newest():
                self._tell()
            await asyncio.sleep(_TICK_SECONDS)

    async def _draw_newest(self) -> bool:
        """Return whether there was something new."""
        new = False
        for camera in self._state.cameras:
            part = self._state.parts.newest(camera)
            if part is None or (camera in self._shown and self._shown[camera][0] is part):
                continue
            pictures = await self._drawing.pictures(part)
            if pictures is not None:
                fields = part.fields() | {"outlines": pictures.outlines}
                self._shown[camera] = part, _message("verdict", fields)
                new = True
        return new


class Pace:
    """Lets the page spend a share of the time, and save some of it for a few parts at once."""

    def __init__(
        self, state: PageState, drawing: Drawing, share: float, share_behind: float
    ) -> None:
        """Begin in the thread of the server.

        Args:
            state: knows whether frames are skipped.
            drawing: makes the pictures.
            share: of a processor core, 0..1.
            share_behind: the same while frames are skipped.
        """
        self._state = state
        self._drawing = drawing
        self._share, self._share_behind = share, share_behind
        self._credit = _MOST_CREDIT_SECONDS
        self._seen_at = monotonic()
        self._spent = self._cpu_seconds()

    def allows(self) -> bool:
        """Whether something may begin; asked in the thread of the server."""
        share = self._share_behind if self._state.is_behind() else self._share
        now, spent = monotonic(), self._cpu_seconds()
        self._credit += share * (now - self._seen_at) - (spent - self._spent)
        self._credit = min(self._credit, _MOST_CREDIT_SECONDS)
        self._seen_at, self._spent = now, spent
        return self._credit > 0

    def _cpu_seconds(self) -> float:
        """Return what the server, whose thread this is, and the drawing have cost so far."""
        return thread_time() + self._drawing.cpu_seconds


class Turns:
    """Middleware that lets clients wait who ask so often that the inspection would feel it.

    Answers and drawing take at most three tenths of a processor core together, a tenth while frames
    are skipped. What is beyond that is answered later, one after the other.
    """

    def __init__(self, app: ASGIApp, *, state: PageState, drawing: Drawing) -> None:
        """Stand before an application."""
        self._app = app
        self._state = state
        self._drawing = drawing
        self._pace: Pace | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when it is its turn."""
        if scope["type"] == "http" and scope["method"] != "POST" and scope["path"] not in _AT_ONCE:
            until = monotonic() + _LONGEST_WAIT_SECONDS
            async with self._turn:
                while not self._allows() and monotonic() < until:
                    await asyncio.sleep(_TICK_SECONDS)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # The page closes, and the picture that was asked for is not drawn yet.
            await PlainTextResponse("the page is closing", 503)(scope, receive, send)

    def _allows(self) -> bool:
        if self._pace is None:
            self._pace = Pace(self._state, self._drawing, _ANSWERS_SHARE, _ANSWERS_SHARE_BEHIND)
        return self._pace.allows()


def _log_fault(done: "asyncio.Task[None]") -> None:
    if not done.cancelled() and done.exception() is not None:
        logger.error("a part cannot be shown", exc_info=done.exception())


def _message(name: str | None, fields: object) -> bytes:
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(fields, allow_nan=False)}\n\n".encode()
