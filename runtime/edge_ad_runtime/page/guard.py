"""Who may look: the Host header, the origin, and beyond this machine a token."""

import hmac
import ipaddress
import os
import socket
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from edge_ad_runtime.errors import DataError
from edge_ad_runtime.stream.config import ServeConfig

_COOKIE = "edge_ad_token"
_SHORTEST_TOKEN = 12
POLICY = "default-src 'self'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def token_for(config: ServeConfig) -> str | None:
    """Return the token that callers need; None: this machine only, and no token is set.

    Raises:
        DataError: the page is to be seen from elsewhere, but there is no token.
    """
    token = os.environ.get(config.token_env)
    if not token and not _is_loopback(config.host):
        raise DataError(
            f"the page on {config.host} could be seen by anyone: set a token in the environment "
            f"variable {config.token_env}, or serve on 127.0.0.1"
        )
    if token and len(token) < _SHORTEST_TOKEN:
        raise DataError(
            f"expected a token of at least {_SHORTEST_TOKEN} characters in {config.token_env}, "
            f"got {len(token)}"
        )
    return token or None


class Guard:
    """Middleware before every route and every websocket."""

    def __init__(
        self, app: Any, *, config: ServeConfig, token: str | None, policy: str = POLICY
    ) -> None:
        """Guard an ASGI application.

        Args:
            app: what is guarded.
            config: on which address it listens, and by which names it may be called.
            token: what callers must show; None: nothing.
            policy: the Content-Security-Policy of its answers.
        """
        self._app = app
        self._headers = _HEADERS | {"Content-Security-Policy": policy}
        self._token = token
        self._names = {"localhost", config.host.lower(), socket.gethostname().lower()}
        self._names.update(name.lower() for name in config.names)
        self._loopback_only = _is_loopback(config.host)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request through, or answer it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            if scope["type"] == "websocket":
                # Before it is accepted: the server answers 403.
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refusal(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                # Of an answer's own headers only what it says about caching stays.
                kept = {key for key, _ in message["headers"]} & {b"cache-control"}
                extra = [
                    (key.lower().encode(), text.encode()) for key, text in self._headers.items()
                ]
                message["headers"] = [
                    *message["headers"],
                    *(header for header in extra if header[0] not in kept),
                ]
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Any) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # A page of the attacker's whose name points to this device (DNS rebinding) ends here.
        if not self._is_ours(_without_port(host)):
            return PlainTextResponse("this device does not go by that name", 403)
        if _is_of_another_page(headers, scope, host):
            return PlainTextResponse("requests from other pages are refused", 403)
        if self._token is None or scope["path"] == "/healthz":
            return None
        query = QueryParams(scope["query_string"])
        if scope["path"] == "/" and self._is_token(query.get("token", "")):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        if self._is_token(_shown_token(headers)):
            return None
        return PlainTextResponse(
            "a token is needed: open /?token=... once, or send it as Authorization: Bearer ...", 401
        )

    def _is_ours(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host.lower() in self._names
        return address.is_loopback or not self._loopback_only

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), (self._token or "").encode())


def _is_of_another_page(headers: Headers, scope: Any, host: str) -> bool:
    """Whether another site's page asks; a link there, which a person follows, may lead here."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return True
    followed = (
        scope.get("method") == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if followed:
        return False
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    # Browsers send Sec-Fetch-Site to this machine and to HTTPS only, a referrer mostly.
    referrer = headers.get("referer", "").partition("://")[2].partition("/")[0]
    return referrer not in ("", host)


def _shown_token(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token
    # Cookies do not know ports, so those of other pages on this host come along, however odd.
    for text in headers.get("cookie", "").split(";"):
        if text.strip().partition("=")[0] == _COOKIE:
            with suppress(CookieError, KeyError):
                return SimpleCookie(text)[_COOKIE].value
    return ""


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
