"""Run the page's server beside the stream."""

import socket
import threading

from edge_ad_runtime.errors import DataError, MissingExtraError
from edge_ad_runtime.outputs.queued import Background
from edge_ad_runtime.stream.config import ServeConfig
from edge_ad_runtime.stream.stream import Stream

try:
    import uvicorn

    from edge_ad_runtime.page.guard import Guard, token_for
    from edge_ad_runtime.page.pictures import Gallery
    from edge_ad_runtime.page.routes import Routes
    from edge_ad_runtime.page.state import PageState
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"the live page needs the package '{error.name}', which is not installed: "
        "pip install 'edge-ad[serve]'"
    ) from error

_CLOSE_SECONDS = 3.0


class PageServer:
    """The server in a thread of its own.

    Attributes:
        address: host and port under which it listens.
    """

    def __init__(self, stream: Stream, config: ServeConfig) -> None:
        """Listen, and take part in the stream's outputs.

        Raises:
            DataError: the address cannot be used, or needs a token that is not set.
        """
        state = PageState([camera.name for camera in stream.config.cameras])
        gallery = Gallery(stream.info_of)
        token = token_for(config)
        application = Routes(stream, state, gallery).application()
        self._socket = _listen(config)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._server = uvicorn.Server(
            uvicorn.Config(
                Guard(application, config=config, token=token),
                log_level="error",
                access_log=False,
                lifespan="off",
                limit_concurrency=100,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="edge-ad page", daemon=True
        )
        self._thread.start()
        stream.delivery.add(state)
        stream.delivery.add(Background(gallery, limit=4))

    def close(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join(_CLOSE_SECONDS)
        self._socket.close()


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise DataError(
            f"cannot serve on {config.host}:{config.port}: {error.strerror}: choose another port"
        ) from error
    return listener
