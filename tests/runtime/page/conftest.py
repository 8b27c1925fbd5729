"""A stream of two cameras with its live page, and how to ask the page's server."""

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import FakeCamera, Frame, FrameSource
from edge_ad_runtime.stream import build
from edge_ad_runtime.stream.config import ServeConfig, parse_config
from edge_ad_runtime.stream.stream import Stream

pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page.server import PageServer

Answer = tuple[int, str, dict[str, str]]
Ask = Callable[..., Answer]
Wait = Callable[..., None]


def parts(seed: int, release: threading.Event) -> Iterator[Frame]:
    """Some 20 round parts a second; every ninth has a bright spot."""
    rng = np.random.default_rng(seed)
    number = 0
    while not release.wait(0.05):
        frame = rng.normal(45, 6, (480, 640, 3)).clip(0, 255).astype(np.uint8)
        center = (320 + int(rng.integers(-20, 20)), 240)
        cv2.circle(frame, center, 190, (90, 82, 74), -1, cv2.LINE_AA)
        cv2.circle(frame, center, 90, (60, 55, 50), -1, cv2.LINE_AA)
        number += 1
        if number % 9 == 0:
            cv2.circle(frame, (center[0] + 120, 180), 60, (255, 255, 255), -1, cv2.LINE_AA)
        yield frame


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """When it is set, the cameras end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def stream(
    model: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stream]:
    """Two cameras with one model, not running yet."""

    def open_fake(spec: str, *_: Any, **__: Any) -> FrameSource:
        return FakeCamera(parts(len(spec), release), name=spec)

    monkeypatch.setattr(build, "open_source", open_fake)
    document = {
        "model": str(model),
        "threads": 1,
        "threshold": 60.0,
        "stall_timeout": 0,  # a machine that stands still for seconds loses no camera
        "alarm": {"frames": 1, "clear_frames": 2},
        "camera": [{"name": "left", "source": "a"}, {"name": "right", "source": "bb"}],
    }
    with Stream(parse_config(document)) as found:
        yield found


@pytest.fixture
def server(stream: Stream, tmp_path: Path) -> Iterator[PageServer]:
    """The page of the stream, which runs."""
    found = PageServer(stream, ServeConfig(port=0, marks=tmp_path / "marks"))
    stop = threading.Event()
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    yield found
    stop.set()
    found.close()
    running.join(60)


@pytest.fixture
def ask() -> Ask:
    """Send a request; return status, text and headers of the answer."""

    def send(
        server: PageServer,
        path: str,
        *,
        body: object = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(*server.address, timeout=60)
        if body is not None:
            data = json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if data is not None else {}
        method = "GET" if data is None else "POST"
        connection.request(method, path, data, kind | (headers or {}))
        answer = connection.getresponse()
        found = answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders())
        connection.close()
        return found

    return send


@pytest.fixture
def wait() -> Wait:
    """Wait until a condition holds."""

    def until(what: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return until


@pytest.fixture
def status(ask: Ask) -> Callable[[PageServer], dict[str, Any]]:
    """Ask for what the page knows."""

    def get(server: PageServer) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(server, "/status")[1])
        return found

    return get


def next_message(answer: http.client.HTTPResponse, name: str) -> dict[str, Any]:
    """Read the stream up to the next message of a name, and return it."""
    found = ""
    while line := answer.readline().decode():
        if line.startswith("event: "):
            found = line[7:].strip()
        elif line.startswith("data: ") and found == name:
            fields: dict[str, Any] = json.loads(line[6:])
            return fields
        elif line == "\n":
            found = ""
    raise AssertionError("the stream ended")


@pytest.fixture
def watch() -> Iterator[Callable[..., http.client.HTTPResponse]]:
    """Open the stream of messages, from one of this machine's addresses; closed at the end."""
    with ExitStack() as opened:

        def start(server: PageServer, client: str = "127.0.0.1") -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(
                *server.address, timeout=60, source_address=(client, 0)
            )
            opened.callback(connection.close)
            connection.request("GET", "/events")
            answer = connection.getresponse()
            opened.callback(answer.close)
            return answer

        yield start


@pytest.fixture
def message() -> Callable[[http.client.HTTPResponse, str], dict[str, Any]]:
    """Read the next message of a name."""
    return next_message


@pytest.fixture
def server_log(
    server: PageServer, caplog: pytest.LogCaptureFixture
) -> Iterator[pytest.LogCaptureFixture]:
    """What the server itself complains of; its logger, set up with it, passes nothing on."""
    logger = logging.getLogger("uvicorn")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
