"""Read the bodies of requests: JSON, from a browser or a program, that may hold anything."""

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from edge_ad_runtime.errors import ConfigError

_LARGEST_BODY = 4096
_LONGEST_NAME = 80
_BODY_SECONDS = 5.0


def finite(value: object) -> float:
    """Return a finite number.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    raise ConfigError(f"expected a finite number as threshold, got {json.dumps(value)[:80]}")


async def json_fields(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        ConfigError: it is something else.
    """
    try:
        fields = json.loads(await text_body(request))
        # Half of a surrogate pair is JSON, but no text: it could not be written anywhere.
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError("expected a JSON object in the body of the request") from error
    if not isinstance(fields, dict):
        raise ConfigError("expected a JSON object in the body of the request")
    return fields


async def text_body(request: Request) -> str:
    """Return the body of a POST of JSON; browsers ask before they send one from elsewhere.

    Raises:
        ConfigError: it is something else, long, or slow to come.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ConfigError("expected the content type application/json")
    try:
        return (await asyncio.wait_for(_read(request), _BODY_SECONDS)).decode()
    except ClientDisconnect as error:
        raise ConfigError("expected the whole body, the client has gone") from error
    except asyncio.TimeoutError as error:
        raise ConfigError(f"expected the whole body within {_BODY_SECONDS:g} s") from error
    except UnicodeDecodeError as error:
        raise ConfigError("expected a body in UTF-8") from error


async def _read(request: Request) -> bytes:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > _LARGEST_BODY:
            raise ConfigError(f"expected at most {_LARGEST_BODY} bytes")
    return data


def who_asks(request: Request, fields: dict[str, Any]) -> str:
    """Return who asks, for the event log: the name given, which nobody has proven, and where."""
    name = " ".join(str(fields.get("who") or "").split())[:_LONGEST_NAME]
    address = request.client.host if request.client else "an unknown address"
    return f"{name or 'somebody'} at {address}"
