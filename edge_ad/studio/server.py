"""Serve the Studio: one application behind the guard of the live page."""

import os
import threading
import warnings
from pathlib import Path
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from edge_ad.studio.state import HOME, Studio
from edge_ad_runtime.errors import ConfigError, EdgeAdError
from edge_ad_runtime.files import make_writable
from edge_ad_runtime.page.guard import Guard, token_for
from edge_ad_runtime.page.server import Connection, listen
from edge_ad_runtime.stream.config import ServeConfig
from edge_ad_runtime.supervisor import Supervisor

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where a second Studio usually finds its port taken
    fcntl = None  # type: ignore[assignment]

# NiceGUI compiles its components in the browser, so scripts of the page itself may be inline and
# evaluated. Nothing may come from, or go to, any other address.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)

_ADVANCE_SECONDS = 0.5
_UPLOADS = ("/studio/upload/", "/studio/score/")
_BODY = 2**20
"""Bytes of a request's body elsewhere."""


class StudioServer:
    """The server of one data root.

    Attributes:
        address: host and port under which it listens.
    """

    def __init__(self, data_root: Path, config: ServeConfig, wheels: Path | None = None) -> None:
        """Listen; nothing is answered before `run`.

        Args:
            data_root: where the folders of the products lie.
            config: address, and names by which it may be called.
            wheels: the folder that `make bundle` wrote, for bundles that need no internet.

        Raises:
            ConfigError: the address cannot be used, needs a token that is not set, or another
                Studio works in this data root.
            DataError: the data root cannot be written to.
        """
        token = token_for(config)
        self._socket = listen(config)  # a port that is taken leaves no folder behind
        home = data_root / HOME
        try:
            make_writable(home)
            self._lock = _lock(home / "lock")  # first: what is tidied up could be another Studio's
            self.studio = Studio(data_root, wheels)
        except EdgeAdError:
            self._socket.close()
            raise
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        guarded = Guard(
            _Bodies(_application(self.studio)), config=config, token=token, policy=POLICY
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                guarded,
                http=_StudioConnection,
                proxy_headers=False,
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )

    def run(self) -> None:
        """Answer until the process is told to end; work that is under way goes on without it."""
        try:
            self._server.run([self._socket])
        finally:
            self._socket.close()
            os.close(self._lock)


def _application(studio: Studio) -> Any:
    """Return the ASGI application, without its guard."""
    # Read when NiceGUI is imported: it would otherwise make a folder where the server was started.
    os.environ["NICEGUI_STORAGE_PATH"] = str(studio.home / "nicegui")
    from fastapi import FastAPI
    from nicegui import app, ui

    from edge_ad.studio import pages, routes

    # NiceGUI looks through all objects of the process for its server, and touches PyTorch's.
    warnings.filterwarnings("ignore", category=FutureWarning, module="nicegui")
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.include_router(routes.router(studio))
    pages.add_pages(studio)

    closing = threading.Event()

    def advance() -> None:
        while not closing.wait(_ADVANCE_SECONDS):
            try:
                studio.queue.advance()
                studio.trouble = ""
            except EdgeAdError as error:
                studio.trouble = str(error)

    app.on_startup(lambda: Supervisor().start("jobs", advance))
    app.on_shutdown(closing.set)
    ui.run_with(
        application,
        title="edge-ad Studio",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30.0,
        language="en-US",
    )
    return application


class _StudioConnection(Connection):
    """A connection that may take its time once its headers have come: to upload, to draw a map."""

    answer_seconds = 3600.0


class _Bodies:
    """Refuses large bodies, but for the addresses that write them to disk as they come."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(_UPLOADS):
            headers = Headers(scope=scope)
            length = headers.get("content-length", "0")
            if "transfer-encoding" in headers or not length.isdecimal() or float(length) > _BODY:
                await PlainTextResponse("this address takes no files", 413)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _lock(path: Path) -> int:
    """Hold a data root for this process; the system lets go of it when the process ends.

    Raises:
        ConfigError: another Studio holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(
                f"another Studio already works in {path.parent.parent}: use that one, several "
                "people can open it, or choose another --data-root"
            ) from error
    return descriptor
