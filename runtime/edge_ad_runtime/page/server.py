"""Run the page's server beside the stream, with bounds on how many connect and how slowly."""

import socket
import sys
from typing import Any

from edge_ad_runtime.errors import ConfigError, MissingExtraError
from edge_ad_runtime.stream.config import ServeConfig
from edge_ad_runtime.stream.stream import Stream
from edge_ad_runtime.stream.triggers import Triggers
from edge_ad_runtime.supervisor import Supervisor

try:
    import resource
except ModuleNotFoundError:  # Windows, where descriptors are not counted this way
    resource = None  # type: ignore[assignment]

try:
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from edge_ad_runtime.page.guard import Guard, token_for
    from edge_ad_runtime.page.marks import Marks
    from edge_ad_runtime.page.parts import Drawing
    from edge_ad_runtime.page.routes import Routes, trigger_application
    from edge_ad_runtime.page.state import PageState
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"a page or a trigger by HTTP needs the package '{error.name}', which is not installed: "
        "pip install 'edge-ad[serve]'"
    ) from error

_CLOSE_SECONDS = 3.0
_MOST_VIEWERS = 16
_FEW_CAMERAS, _LARGE, _SMALL = 2, 1280, 640
"""Of many cameras each has only a small part of a screen."""

_BACKLOG = 16
"""How many connections are accepted in one go, before any of them can be refused."""

_MOST_CONNECTIONS = 100
_FEWEST_CONNECTIONS = 8
_ASK_SECONDS = 5.0
"""For the headers of a request."""

_STUCK_SECONDS = 20.0
"""For a client to read what has been sent."""

_LOOK_SECONDS = 1.0


class Server:
    """An application behind its guard, served in a thread of its own.

    Attributes:
        address: host and port under which it listens.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, supervisor: Supervisor) -> None:
        """Listen.

        Args:
            app: what is served, to those whom the guard lets through.
            config: where to listen, and who may ask.
            supervisor: starts the thread.

        Raises:
            ConfigError: the address cannot be used.
            DataError: it needs a token that is not set.
        """
        guarded = Guard(app, config=config, token=token_for(config))
        self._socket = listen(config)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._config = uvicorn.Config(
            guarded,
            http=Connection,
            ws="none",
            # A client counts by its own address, whatever it says about itself.
            proxy_headers=False,
            log_level="error",
            access_log=False,
            lifespan="off",
            backlog=_BACKLOG,
            timeout_graceful_shutdown=1,
        )
        self._closing = False
        self._server: uvicorn.Server | None = None
        self._thread = supervisor.start("server", self._serve)

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(_CLOSE_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        """Serve until `close`; on a copy of the socket, so that a fault leaves the socket open."""
        self._server = uvicorn.Server(self._config)
        if not self._closing:
            self._server.run([self._socket.dup()])


class PageServer:
    """The live page of a stream.

    Attributes:
        address: host and port under which it listens.
    """

    def __init__(self, stream: Stream, config: ServeConfig) -> None:
        """Listen, and take part in the stream's outputs.

        Raises:
            ConfigError: the address cannot be used.
            DataError: it needs a token that is not set.
        """
        cameras = stream.config.cameras
        # With triggers, frames that nobody asked for are passed over all the time.
        steps = {
            camera.name: camera.every if stream.triggers is None else sys.maxsize
            for camera in cameras
        }
        self._drawing = Drawing(_LARGE if len(cameras) <= _FEW_CAMERAS else _SMALL)
        state = PageState(steps, stream.info_of, self._drawing.keep)
        routes = Routes(
            stream,
            state,
            self._drawing,
            Marks(config.marks),
            most_viewers=min(_MOST_VIEWERS, _most_connections() // 2),
        )
        self._viewers = routes.viewers
        self._server = Server(routes.application(), config, stream.supervisor)
        self.address = self._server.address
        stream.delivery.add(state)

    def close(self) -> None:
        """Stop listening."""
        self._viewers.close()
        self._server.close()
        self._drawing.close()


def trigger_server(triggers: Triggers, config: ServeConfig, supervisor: Supervisor) -> Server:
    """Return a server that takes triggers by `POST /trigger`, and nothing else.

    Raises:
        ConfigError, DataError: as `Server`.
    """
    return Server(trigger_application(triggers), config, supervisor)


def listen(config: ServeConfig) -> socket.socket:
    """Return a socket that listens on the configured address.

    Raises:
        ConfigError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot serve on {config.host}:{config.port}: {error.strerror}: choose another port"
        ) from error
    return listener


def local_url(address: tuple[str, int]) -> str:
    """Return where a server that listens on an address (host, port) is found on this machine."""
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _most_connections() -> int:
    """Return how many connections the page may hold.

    At most a quarter of the descriptors that the process may have: the others are a reserve for
    cameras, outputs and files, which the page must never starve.
    """
    if resource is None:
        return _MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(_FEWEST_CONNECTIONS, min(_MOST_CONNECTIONS, soft // 4))


class Connection(H11Protocol):
    """One connection, cut off when it does not ask, cannot be answered, or is one too many.

    When there are too many, the one that has made no progress for longest gives way, so that idle
    and half-sent requests keep nobody out. Open pages have places of their own, see `Viewers`.

    Attributes:
        answer_seconds: for the rest of a request after its headers, and for its answer.
    """

    answer_seconds = 20.0

    def connection_made(self, transport: Any) -> None:
        """Take the connection, and let another one go if need be."""
        super().connection_made(transport)
        self._since = self._looked_at = self.loop.time()
        self._stuck_since: float | None = None
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
        if len(self.connections) > _most_connections():
            others = [other for other in self.connections if isinstance(other, Connection)]
            waiting = [other for other in others if not other._is_page and other is not self]
            min(waiting, key=lambda other: other._since, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when a whole request has come."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Note when the next request may come."""
        self._since = self.loop.time()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leave the connection to the websocket's own bounds."""
        self._timer.cancel()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Note since when the client does not read."""
        self._stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._stuck_since = None
        super().resume_writing()

    @property
    def _is_page(self) -> bool:
        """Whether it is an open page, which is sent messages without end."""
        return self._is_asking and bool(self.scope["state"].get("endless"))

    @property
    def _is_asking(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        now = self.loop.time()
        # While this process stood still, what the client has sent could not be read.
        stood_still = now - self._looked_at - _LOOK_SECONDS
        self._looked_at = now
        self._since += stood_still
        if self._stuck_since is not None:
            self._stuck_since += stood_still
        patience = self.answer_seconds if self._is_asking else _ASK_SECONDS
        late = now - self._since > patience and not self._is_page
        stuck = self._stuck_since is not None and now - self._stuck_since > _STUCK_SECONDS
        if late or stuck:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
