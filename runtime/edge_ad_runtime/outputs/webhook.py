"""A URL that takes each verdict as an HTTP POST of JSON."""

import os
import urllib.error
import urllib.request

from edge_ad_runtime.outputs.output_config import WebhookConfig
from edge_ad_runtime.outputs.remote import Refused
from edge_ad_runtime.redact import redact

_WORTH_TRYING_AGAIN = (408, 425, 429)


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
