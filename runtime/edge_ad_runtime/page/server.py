"""Run the page's server beside the stream."""

import socket
import sys

from edge_ad_runtime.errors import ConfigError, MissingExtraError
from edge_ad_runtime.stream.config import ServeConfig
from edge_ad_runtime.stream.stream import Stream

try:
    import uvicorn

    from edge_ad_runtime.page.connections import BACKLOG, Connection, most_connections
    from edge_ad_runtime.page.drawing import Drawing
    from edge_ad_runtime.page.guard import Guard, token_for
    from edge_ad_runtime.page.marks import Marks
    from edge_ad_runtime.page.routes import Routes
    from edge_ad_runtime.page.state import PageState
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"the live page needs the package '{error.name}', which is not installed: "
        "pip install 'edge-ad[serve]'"
    ) from error

_CLOSE_SECONDS = 3.0
_MOST_VIEWERS = 16
_FEW_CAMERAS, _LARGE, _SMALL = 2, 1280, 640
"""Of many cameras each has only a small part of a screen."""


class PageServer:
    """The server in a thread of its own.

    Attributes:
        address: host and port under which it listens.
    """

    def __init__(self, stream: Stream, config: ServeConfig) -> None:
        """Listen, and take part in the stream's outputs.

        Raises:
            ConfigError: the address cannot be used, or needs a token that is not set.
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
            most_viewers=min(_MOST_VIEWERS, most_connections() // 2),
        )
        self._viewers = routes.viewers
        guarded = Guard(routes.application(), config=config, token=token_for(config))
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
            backlog=BACKLOG,
            timeout_graceful_shutdown=1,
        )
        self._closing = False
        self._server: uvicorn.Server | None = None
        self._thread = stream.supervisor.start("live page", self._serve)
        stream.delivery.add(state)

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        self._viewers.close()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(_CLOSE_SECONDS)
        self._drawing.close()
        self._socket.close()

    def _serve(self) -> None:
        """Serve until `close`; on a copy of the socket, so that a fault leaves the socket open."""
        self._server = uvicorn.Server(self._config)
        if not self._closing:
            self._server.run([self._socket.dup()])


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
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot serve on {config.host}:{config.port}: {error.strerror}: choose another port"
        ) from error
    return listener
