"""A URL that takes each verdict as an HTTP POST of JSON."""

import asyncio
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_ad_runtime.config_table import HOST, VARIABLE, Text, setting
from edge_ad_runtime.errors import ConfigError, MissingExtraError, redact
from edge_ad_runtime.outputs.remote import Refused

_URL = Text(
    rf"https?://([^\s/?#\x00-\x1f\x7f]*@)?(\[[0-9a-fA-F:.]+\]|{HOST})(:[0-9]{{1,5}})?([/?][^\s#\x00-\x1f\x7f]*)?",
    "http://HOST/PATH or https://HOST/PATH",
)
_AGAIN = (401, 403, 404, 405, 407, 408, 421, 425, 429)
"""Answers that a change of the server, the address or the token puts right: nothing is lost."""


@dataclass(frozen=True, kw_only=True)
class WebhookConfig:
    """A URL that takes each verdict as a POST; an environment variable holds the bearer token."""

    url: str = setting(text=_URL)
    timeout: float = setting(5.0, low=0.1, high=60)
    token_env: str = setting("EDGE_AD_WEBHOOK_TOKEN", text=VARIABLE)
    spool: Path = setting(Path("edge-ad-webhook.spool"))
    spool_limit: int = setting(100_000, low=1, high=10**7)

    def __post_init__(self) -> None:
        """Refuse what only looks like a URL.

        Raises:
            ConfigError: the URL has an impossible address or port.
        """
        try:
            urlsplit(self.url).port  # noqa: B018  (raises)
        except ValueError as error:
            raise ConfigError(f"expected url with an address and a port, {error}") from error


class WebhookSender:
    """Posts messages; an answer from 200 to 299 confirms.

    A redirect is not followed: it may turn the POST into a GET, which confirms nothing, and the
    token is for the configured host only. The timeout is a deadline for the whole request, since a
    server may send one byte now and then for ever.
    """

    def __init__(self, config: WebhookConfig) -> None:
        """Read the token of the environment, if there is one; it is sent as a bearer token.

        Raises:
            MissingExtraError: httpx is not installed.
            ConfigError: the URL cannot be used.
        """
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "the webhook needs the package 'httpx', which is not installed: "
                "pip install 'edge-ad[webhook]'"
            ) from error
        self.name = redact(config.url)
        self._timeout = config.timeout
        self._errors = (httpx.HTTPError, httpx.StreamError, OSError)
        try:
            self._url = httpx.URL(config.url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"cannot use the webhook's URL {self.name}: check it") from error
        self._headers = {"Content-Type": "application/json", "User-Agent": "edge-ad"}
        token = os.environ.get(config.token_env, "").strip()
        if token:
            if not (token.isascii() and token.isprintable()):
                raise ConfigError(f"the token in {config.token_env} holds an unusual character")
            self._headers["Authorization"] = f"Bearer {token}"
            self._url = self._url.copy_with(username=None, password=None)
        self._client = httpx.AsyncClient(
            timeout=None, follow_redirects=False, verify=ssl.create_default_context()
        )
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[int] | None = None
        self._cancelled = False

    def send(self, topic: str, payload: str) -> None:
        """Post a message.

        Raises:
            Refused: the server answers that it will never take this message (4xx).
            OSError: it did not answer in time, redirects, or asks to be tried again.
        """
        self._task = self._loop.create_task(self._post(topic, payload))
        if self._cancelled:  # between two messages, when there was nothing to cancel
            self._task.cancel()
        try:
            code = self._loop.run_until_complete(asyncio.wait_for(self._task, self._timeout))
        except asyncio.TimeoutError as error:
            raise OSError(f"no answer within {self._timeout:g} s") from error
        except asyncio.CancelledError as error:
            raise OSError("the stream ends") from error
        except self._errors as error:
            raise OSError(f"{type(error).__name__}: {redact(str(error))}") from error
        if 300 <= code < 400:
            raise OSError(f"HTTP {code}, a redirect, which is not followed: give the final address")
        if 400 <= code < 500 and code not in _AGAIN:
            raise Refused(f"HTTP {code}")
        if not 200 <= code < 300:
            raise OSError(f"HTTP {code}")

    def cancel(self) -> None:
        """Let a `send` under way in another thread raise `OSError` at once, and every later one."""
        self._cancelled = True
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Release everything, when no `send` is under way any more."""
        if not self._loop.is_running():
            self._loop.run_until_complete(self._client.aclose())
            self._loop.close()

    async def _post(self, topic: str, payload: str) -> int:
        # HTTP headers are ASCII; the topic is in there for servers that sort by it.
        headers = {"X-Edge-AD-Topic": topic.encode("ascii", "replace").decode().strip()}
        request = self._client.stream(
            "POST", self._url, content=payload.encode(), headers=self._headers | headers
        )
        # The status confirms. The rest of the answer, however long, is not waited for.
        async with request as response:
            return int(response.status_code)
