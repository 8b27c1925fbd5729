"""A URL that takes each verdict as an HTTP POST of JSON."""

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_ad_runtime.config_table import VARIABLE, Text, setting
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.outputs.remote import Refused
from edge_ad_runtime.redact import redact

_URL = Text(
    r"https?://([^\s/?#\0]*@)?(\[[0-9a-fA-F:.]+\]|[^\s/?#\0\[\]:@]{1,253})(:[0-9]{1,5})?"
    r"([/?][^\s#\0]*)?",
    "http://HOST/PATH or https://HOST/PATH",
)
_WORTH_TRYING_AGAIN = (408, 425, 429)


@dataclass(frozen=True, kw_only=True)
class WebhookConfig:
    """A URL that takes each verdict as a POST; an environment variable holds the bearer token."""

    url: str = setting(text=_URL, secret=True)
    timeout: float = setting(5.0, low=0.1, high=60)
    token_env: str = setting("EDGE_AD_WEBHOOK_TOKEN", text=VARIABLE)
    spool: Path = setting(Path("edge-ad-webhook.spool"))
    spool_limit: int = setting(100_000, low=1, high=10**8)

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
    """Posts messages; 2xx confirms."""

    def __init__(self, config: WebhookConfig) -> None:
        """Read the token of the environment, if there is one; it is sent as a bearer token."""
        self.name = redact(config.url)
        self._url = config.url
        self._timeout = config.timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "edge-ad"}
        token = os.environ.get(config.token_env)
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def send(self, topic: str, payload: str) -> None:
        """Post a message.

        Raises:
            Refused: the server answers that it will never take it (4xx).
            OSError: it did not answer, or asks to be tried again.
        """
        request = urllib.request.Request(
            self._url, payload.encode(), self._headers | {"X-Edge-AD-Topic": _latin(topic)}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout):
                pass
        except urllib.error.HTTPError as error:
            code = error.code
            error.close()
            if 400 <= code < 500 and code not in _WORTH_TRYING_AGAIN:
                raise Refused(f"HTTP {code}") from error
            raise OSError(f"HTTP {code}") from error

    def close(self) -> None:
        """A post ends by its timeout."""


def _latin(text: str) -> str:
    return text.encode("ascii", "replace").decode()
