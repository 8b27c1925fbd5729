"""Connections to the page: how many there may be, and how long each may take to ask."""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ModuleNotFoundError:  # Windows, where descriptors are not counted this way
    resource = None  # type: ignore[assignment]

BACKLOG = 16
"""How many connections are accepted in one go, before any of them can be refused."""

_MOST = 100
_FEWEST = 8
_ASK_SECONDS = 5.0
"""For the headers of a request."""

_ANSWER_SECONDS = 20.0
"""For the rest of a request and its answer."""

_STUCK_SECONDS = 20.0
"""For a client to read what has been sent."""

_LOOK_SECONDS = 1.0


def most_connections() -> int:
    """Return how many connections the page may hold.

    At most a quarter of the descriptors that the process may have: the others are a reserve for
    cameras, outputs and files, which the page must never starve.
    """
    if resource is None:
        return _MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(_FEWEST, min(_MOST, soft // 4))


class Connection(H11Protocol):
    """One connection, cut off when it does not ask, cannot be answered, or is one too many.

    When there are too many, the one that has made no progress for longest gives way, so that idle
    and half-sent requests keep nobody out. Open pages have places of their own, see `Viewers`.
    """

    def connection_made(self, transport: Any) -> None:
        """Take the connection, and let another one go if need be."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._stuck_since: float | None = None
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
        if len(self.connections) > most_connections():
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
        patience = _ANSWER_SECONDS if self._is_asking else _ASK_SECONDS
        late = now - self._since > patience and not self._is_page
        stuck = self._stuck_since is not None and now - self._stuck_since > _STUCK_SECONDS
        if late or stuck:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
