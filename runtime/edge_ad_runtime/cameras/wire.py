"""One HTTP connection to a camera, which any thread can end.

Neither urllib nor http.client has a timeout for a whole answer, or a way to give one up.
"""

import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit


class Wire(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections and keeps the newest one's socket, so that any thread can end it."""

    def __init__(self) -> None:
        """Start without a connection."""
        urllib.request.HTTPHandler.__init__(self)
        self._socket: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._given_up = False

    def get(self, url: str, timeout: float) -> http.client.HTTPResponse:
        """Ask for an address, with its user and password where the server wants them.

        Args:
            url: of HTTP or HTTPS.
            timeout: seconds that the connection may be silent.

        Raises:
            HTTPError, URLError, OSError, HTTPException, ValueError: there is no usable answer.
            LookupError: urllib cannot read how the server asks for a password.
        """
        parts = urlsplit(url)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(None, bare, user, password)
        # No proxy: cameras are in the local network. And nothing but HTTP, also by a redirect.
        opener = urllib.request.OpenerDirector()
        for handler in (
            self,
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPDigestAuthHandler(passwords),
            _BasicAuthentication(passwords),
        ):
            opener.add_handler(handler)
        return cast(http.client.HTTPResponse, opener.open(bare, timeout=timeout))

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open a connection for a request of urllib."""
        return self._answered(self._connect, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an encrypted connection for a request of urllib."""
        return self._answered(self._connect_securely, request)

    def set_timeout(self, seconds: float) -> None:
        """Set how long the newest connection may be silent."""
        if self._socket is not None:
            self._socket.settimeout(seconds)

    @contextmanager
    def given_up_after(self, seconds: float) -> Iterator[None]:
        """Give up if what is done meanwhile takes longer."""
        timer = threading.Timer(seconds, self.give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def give_up(self) -> None:
        """End the connection for good, from any thread; whoever reads from it is told."""
        self._given_up = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def close(self) -> None:
        """Release the newest connection, in the thread that reads from it."""
        self._hang_up()
        if self._answer is not None:
            self._answer.close()

    def _answered(
        self, connect: Callable[..., http.client.HTTPConnection], request: urllib.request.Request
    ) -> http.client.HTTPResponse:
        self.close()  # an answer that asked for a password, or led elsewhere
        self._answer = self.do_open(cast(Any, connect), request)
        return self._answer

    def _connect(self, host: str, *, timeout: float) -> http.client.HTTPConnection:
        return self._kept(http.client.HTTPConnection(host, timeout=timeout))

    def _connect_securely(self, host: str, *, timeout: float) -> http.client.HTTPConnection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return self._kept(http.client.HTTPSConnection(host, timeout=timeout, context=context))

    def _kept(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        connection.connect()
        self._socket = connection.sock
        if self._given_up:
            connection.close()  # the time ended while this second connection was made
            raise TimeoutError
        return connection


class _BasicAuthentication(urllib.request.HTTPBasicAuthHandler):
    """Leaves an answer that asks for Digest only alone; the base class raises ValueError."""

    def http_error_401(
        self,
        request: urllib.request.Request,
        answer: IO[bytes],
        code: int,
        reason: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        asked = headers.get_all("WWW-Authenticate", [])
        if not any(text.lower().startswith("basic") for text in asked):
            return None
        return super().http_error_401(request, answer, code, reason, headers)
