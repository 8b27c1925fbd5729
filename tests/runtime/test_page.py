"""The live page: what its server answers and refuses, and the page itself in a browser."""

import http.client
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import (
    CameraError,
    CapturedFrame,
    DataError,
    FakeCamera,
    Frame,
    FrameSource,
    ModelInfo,
    Result,
)
from edge_ad_runtime.stream import stream as stream_module
from edge_ad_runtime.stream.config import ServeConfig, parse_config
from edge_ad_runtime.stream.stream import Stream

pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page.guard import token_for
from edge_ad_runtime.page.pictures import Gallery
from edge_ad_runtime.page.server import PageServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "a-token-for-this-test"


def parts(seed: int, release: threading.Event) -> Iterator[Frame]:
    """A line of round parts at some 20 a second; every ninth has a bright spot."""
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
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def stream(
    model: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stream]:
    """Two cameras, running."""

    def open_fake(spec: str, *_: Any, **__: Any) -> FrameSource:
        return FakeCamera(parts(len(spec), release), name=spec)

    monkeypatch.setattr(stream_module, "open_source", open_fake)
    document = {
        "model": str(model),
        "threads": 1,
        "threshold": 60.0,
        "alarm": {"frames": 1, "clear_frames": 2},
        "camera": [{"name": "left", "source": "a"}, {"name": "right", "source": "bb"}],
    }
    found = Stream(parse_config(document))
    yield found


@pytest.fixture
def server(stream: Stream) -> Iterator[PageServer]:
    found, stop = PageServer(stream, ServeConfig(port=0)), threading.Event()
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    yield found
    stop.set()
    found.close()
    running.join(20)


def ask(
    server: PageServer, path: str, *, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    kind = {"Content-Type": "application/json"} if body is not None else {}
    data = None if body is None else json.dumps(body)
    method = "GET" if body is None else "POST"
    connection.request(method, path, data, kind | (headers or {}))
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders())
    connection.close()
    return found


def wait(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(server: PageServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(server, "/status")[1])
    return found


def test_a_picture_outlives_its_place_in_the_gallery(
    info: ModelInfo, verdict: Callable[..., tuple[CapturedFrame, Result]]
) -> None:
    gallery = Gallery(lambda camera: info)
    for number in range(60):
        gallery.write(*verdict(number))
    assert [entry["frame"] for entry in gallery.entries()] == list(range(59, 35, -1))
    assert gallery.picture(1) is not None


def test_status_health_and_metrics(server: PageServer) -> None:
    wait(lambda: all(camera["anomalous"] for camera in status(server)["cameras"]))
    wait(lambda: status(server)["gallery"])
    found = status(server)
    left = found["cameras"][0]
    assert (left["name"], left["threshold"], left["lost"]) == ("left", 60.0, False)
    assert len(left["scores"]) == left["frames"]
    assert ask(server, "/healthz")[:2] == (200, '{"ok":true,"lost":[]}')
    metrics = ask(server, "/metrics")[1]
    assert 'edge_ad_frames_total{camera="left"}' in metrics
    assert 'edge_ad_camera_up{camera="right"} 1.0' in metrics
    number = found["gallery"][0]["id"]
    assert ask(server, f"/gallery/{number}")[2]["content-type"] == "image/jpeg"
    assert ask(server, "/gallery/99999")[0] == 404


def test_the_threshold_can_be_moved(server: PageServer, stream: Stream) -> None:
    assert ask(server, "/threshold", body={"camera": "left", "threshold": 90})[0] == 200
    assert stream.info_of("left").threshold == 90
    wrongs: list[object] = [
        {"camera": "nobody", "threshold": 1},
        {"camera": "left"},
        [],
        {"threshold": "x"},
    ]
    for wrong in wrongs:
        assert ask(server, "/threshold", body=wrong)[0] == 400
    assert ask(server, "/threshold", body={"camera": "left", "threshold": "nan"})[0] == 400
    assert ask(server, "/threshold", body={"a": "b" * 5000})[0] == 400
    assert stream.info_of("left").threshold == 90


def test_no_triggers_where_every_frame_is_scored(server: PageServer) -> None:
    assert ask(server, "/trigger", body={"id": "x"})[0] == 409


def test_a_post_is_a_trigger(
    model: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stream_module, "open_source", lambda *_, **__: FakeCamera(parts(1, release), name="a")
    )
    document = {
        "model": str(model),
        "camera": [{"name": "left", "source": "a"}],
        "trigger": {"mode": "http"},
        "serve": {"port": 0},
    }
    stream = Stream(parse_config(document))
    found: list[str | None] = []
    server, stop = PageServer(stream, ServeConfig(port=0)), threading.Event()
    stream.delivery.add(_Ids(found))
    running = threading.Thread(target=stream.run, args=(stop,))
    running.start()
    try:
        for identity in ("one", "two"):
            code, text, _ = ask(server, "/trigger", body={"id": identity})
            assert (code, json.loads(text)) == (202, {"trigger": identity})
        assert ask(server, "/trigger", body={"camera": "nowhere"})[0] == 400
        wait(lambda: len(found) == 2)
    finally:
        stop.set()
        server.close()
        running.join(20)
    assert found == ["one", "two"]


class _Ids:
    """Notes the triggers of the verdicts."""

    def __init__(self, found: list[str | None]) -> None:
        self.found = found

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.found.append(captured.trigger)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "192.168.1.9:8080"}, 403),
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_who_may_ask(server: PageServer, headers: dict[str, str], code: int) -> None:
    found = ask(server, "/status", headers=headers)
    assert found[0] == code
    assert "access-control-allow-origin" not in found[2]


def test_a_form_of_another_page_changes_nothing(server: PageServer) -> None:
    kind = {"Content-Type": "text/plain"}
    body = {"camera": "left", "threshold": 1}
    assert ask(server, "/threshold", body=body, headers=kind)[0] == 400


def test_a_token_guards_the_page(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AD_TOKEN", TOKEN)
    server = PageServer(stream, ServeConfig(port=0))
    try:
        assert ask(server, "/status")[0] == 401
        assert ask(server, "/healthz")[0] == 200
        assert ask(server, "/status", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert ask(server, "/status", headers={"Authorization": f"Bearer {TOKEN}x"})[0] == 401
        code, _, headers = ask(server, f"/?token={TOKEN}")
        assert code == 303 and "HttpOnly" in headers["set-cookie"]
        cookie = headers["set-cookie"].partition(";")[0]
        assert ask(server, "/", headers={"Cookie": cookie})[0] == 200
    finally:
        server.close()


@pytest.mark.parametrize(
    ("host", "token", "message"),
    [
        ("0.0.0.0", "", "set a token"),
        ("192.168.0.2", "", "set a token"),
        ("::", "short", "at least"),
    ],
)
def test_no_page_beyond_this_machine_without_a_token(
    monkeypatch: pytest.MonkeyPatch, host: str, token: str, message: str
) -> None:
    monkeypatch.setenv("EDGE_AD_TOKEN", token)
    with pytest.raises(DataError, match=message):
        token_for(ServeConfig(host=host))


def test_a_client_that_never_reads_holds_up_nobody(server: PageServer) -> None:
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.connect(server.address)
        lazy.sendall(b"GET /camera/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        before = status(server)["cameras"][0]["frames"]
        wait(lambda: status(server)["cameras"][0]["frames"] > before + 10)


def test_too_many_viewers_are_refused(server: PageServer) -> None:
    viewers = [socket.create_connection(server.address, 5) for _ in range(20)]
    try:
        for viewer in viewers:
            viewer.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers = [viewer.recv(20) for viewer in viewers]
    finally:
        for viewer in viewers:
            viewer.close()
    assert sum(b"503" in answer for answer in answers) == 4
    wait(lambda: ask(server, "/camera/7")[0] == 404)


def test_a_port_in_use(server: PageServer, stream: Stream) -> None:
    with pytest.raises(DataError, match="choose another port"):
        PageServer(stream, ServeConfig(port=server.address[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.slow
def test_in_a_browser(server: PageServer, stream: Stream, release: threading.Event) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 1240})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.address[1]}/", wait_until="domcontentloaded")
        page.wait_for_selector("article >> nth=1")
        page.wait_for_selector("#gallery img >> nth=5", timeout=30_000)
        page.wait_for_selector("#events li")
        page.wait_for_function("document.querySelector('.live').naturalWidth > 100")
        assert page.locator("#health").inner_text() == "all cameras deliver"
        assert page.locator("article .name").all_inner_texts() == ["left", "right"]
        _limit_to(page, 0.0)
        wait(lambda: stream.info_of("left").threshold < 60)
        page.wait_for_selector("article.bad")
        _limit_to(page, 60.0)
        wait(lambda: stream.info_of("left").threshold == 60)
        page.locator("#contrast").evaluate(
            "node => { node.value = 0.5; node.dispatchEvent(new Event('change')); }"
        )
        assert "contrast=3.16" in page.locator(".live").first.get_attribute("src")
        page.locator("#gallery button").first.hover()
        held = page.locator("#gallery img").first.get_attribute("src")
        page.wait_for_timeout(1200)
        assert page.locator("#gallery img").first.get_attribute("src") == held
        page.locator("#gallery button").first.click()
        assert "score" in page.locator("dialog p").inner_text()
        page.get_by_role("button", name="Close").click()
        if shot := os.environ.get("EDGE_AD_SCREENSHOT"):
            page.wait_for_timeout(3000)
            page.screenshot(path=shot)
        stream.delivery.event(_lost("left"))
        page.wait_for_selector("article.lost")
        assert ask(server, "/healthz")[0] == 503
        assert page.locator("#health").inner_text() == "1 cameras lost"
        browser.close()
    assert faults == []


def _limit_to(page: Any, value: float) -> None:
    page.locator(".limit input").first.evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('change')); }", value
    )


def _lost(camera: str) -> Any:
    from edge_ad_runtime.events import Event

    return Event(kind="camera lost", message=str(CameraError("unplugged")), camera=camera)
