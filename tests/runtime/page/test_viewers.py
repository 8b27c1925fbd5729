"""Many viewers, slow viewers, and what each is sent."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_ad_runtime import CapturedFrame, ModelInfo, Result
from edge_ad_runtime.stream.stream import Stream

pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page import parts
from edge_ad_runtime.page.parts import Drawing
from edge_ad_runtime.page.server import PageServer
from edge_ad_runtime.page.state import News, PageState
from edge_ad_runtime.page.viewers import Pace, Turns, Viewers

Ask = Callable[..., tuple[int, str, dict[str, str]]]
Wait = Callable[..., None]
Status = Callable[[PageServer], dict[str, Any]]
Watch = Callable[..., http.client.HTTPResponse]
Message = Callable[[http.client.HTTPResponse, str], dict[str, Any]]
Verdict = Callable[..., tuple[CapturedFrame, Result]]


def test_each_verdict_names_its_own_pictures(
    server: PageServer, ask: Ask, watch: Watch, message: Message
) -> None:
    viewer = watch(server)
    found = [message(viewer, "verdict") for _ in range(8)]
    assert {part["camera"] for part in found} == {"left", "right"}
    for part in found:
        assert {"frame", "score", "threshold", "anomalous", "timestamp", "outlines"} < set(part)
    code, _, headers = ask(server, f"/part/{found[-1]['id']}/plain.jpg")
    assert (code, headers["content-type"]) == (200, "image/jpeg")
    left = message(viewer, "status")["cameras"][0]
    assert {"parts", "shift", "threshold", "state"} < set(left)


def test_the_last_part_is_sent_to_those_who_come_later(
    server: PageServer,
    stream: Stream,
    release: Any,
    watch: Watch,
    message: Message,
    wait: Wait,
    status: Status,
) -> None:
    wait(lambda: all(camera["frames"] > 3 for camera in status(server)["cameras"]))
    release.set()
    wait(lambda: not any("edge-ad loop" in thread.name for thread in threading.enumerate()))
    last = {camera["name"]: camera["latest"] for camera in status(server)["cameras"]}
    for _ in range(2):
        viewer = watch(server)
        found = [message(viewer, "verdict") for _ in last]
        assert {part["camera"]: part["id"] for part in found} == last


def test_nothing_is_drawn_while_nobody_looks(
    server: PageServer, stream: Stream, watch: Watch, message: Message, wait: Wait, status: Status
) -> None:
    # Good parts only: anomalous ones are drawn for the list.
    for camera in ("left", "right"):
        stream.set_threshold(camera, 1000)
    judged = status(server)["cameras"][0]["frames"]
    wait(lambda: status(server)["cameras"][0]["frames"] > judged + 10)
    drawing = server._drawing
    drawing._pool.submit(lambda: None).result()  # what was asked for before is drawn
    before = drawing.cpu_seconds
    time.sleep(0.5)
    assert drawing.cpu_seconds == before
    message(watch(server), "verdict")
    assert drawing.cpu_seconds > before


def test_all_viewers_share_one_drawing_of_a_part(info: ModelInfo, verdict: Verdict) -> None:
    state = PageState({"left": 1}, lambda camera: info)
    captured, result = verdict()
    state.write(captured, result)
    part = state.parts.newest("left")
    assert part is not None and part.draw(640) is part.draw(640)


def test_a_client_that_never_reads_holds_up_nobody(
    server: PageServer, wait: Wait, status: Status
) -> None:
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.connect(server.address)
        lazy.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        before = status(server)["cameras"][0]["frames"]
        wait(lambda: status(server)["cameras"][0]["frames"] > before + 10)


def test_many_viewers_of_one_client_lock_nobody_out(
    server: PageServer, watch: Watch, message: Message
) -> None:
    greedy = [watch(server, "127.0.0.2") for _ in range(20)]
    operator = watch(server, "127.0.0.1")
    assert operator.status == 200
    message(operator, "verdict")
    # Each time the one who had come last gave way, and was told so.
    for viewer in greedy[7:19]:
        assert message(viewer, "dismissed") == {}
    for viewer in (*greedy[:7], greedy[19]):
        message(viewer, "verdict")


def test_many_clients_lock_nobody_out(server: PageServer, watch: Watch, message: Message) -> None:
    operator = watch(server, "127.0.0.1")
    others = [watch(server, f"127.0.1.{1 + number // 2}") for number in range(30)]
    # A client with several places loses one first.
    message(others[1], "dismissed")
    message(others[-1], "verdict")
    message(operator, "verdict")


def test_a_viewer_who_leaves_gives_the_place_back(
    server: PageServer, watch: Watch, message: Message
) -> None:
    for _ in range(40):
        viewer = watch(server)
        message(viewer, "status")
        viewer.close()
    message(watch(server), "status")


def test_the_pace_falls_when_frames_are_skipped(info: ModelInfo, verdict: Verdict) -> None:
    state = PageState({"left": 2}, lambda camera: info)
    drawing = Drawing(640)
    for number in (0, 2, 4, 6):
        state.write(*verdict(number))
    assert not state.is_behind()
    for number in (10, 12):
        state.write(*verdict(number))
    assert state.is_behind()
    pace = Pace(state, drawing, 0.2, 0.04)
    assert pace.allows()
    drawing.cpu_seconds += 1.0
    assert not pace.allows()
    drawing.close()


def test_clients_that_ask_again_and_again_wait_for_their_turn(
    info: ModelInfo, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of them halved the verdict rate. Watchdogs, triggers and changes never wait."""
    answers = []
    allowed: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answers.append((scope["method"], scope["path"], len(allowed)))

    async def ask() -> None:
        for method, path in (("GET", "/healthz"), ("POST", "/trigger"), ("GET", "/status")):
            await turns({"type": "http", "method": method, "path": path}, None, None)  # type: ignore[arg-type]

    drawing = Drawing(640)
    turns = Turns(app, state=PageState({"left": 1}, lambda camera: info), drawing=drawing)
    allowed += [True, False, False]
    monkeypatch.setattr(Pace, "allows", lambda self: allowed.pop())
    asyncio.run(ask())
    assert answers == [("GET", "/healthz", 3), ("POST", "/trigger", 3), ("GET", "/status", 0)]
    drawing.close()


def test_a_picture_that_is_not_drawn_when_the_page_closes_is_no_traceback(info: ModelInfo) -> None:
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def send(message: Any) -> None:
        sent.append(message)

    drawing = Drawing(640)
    turns = Turns(app, state=PageState({"left": 1}, lambda camera: info), drawing=drawing)
    scope = {"type": "http", "method": "GET", "path": "/part/a/plain.jpg"}
    asyncio.run(turns(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 503
    drawing.close()


def test_a_part_that_cannot_be_drawn_does_not_end_the_page(
    info: ModelInfo,
    verdict: Verdict,
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For those who look already, too: nobody may come who would start it again."""
    state, drawing = PageState({"left": 1}, lambda camera: info), Drawing(640)
    viewers = Viewers(state, drawing, News(stream, state), most=4)
    state.write(*verdict(0))
    real, faults = Drawing.pictures, [MemoryError("a very large frame")]

    async def pictures(drawing: Drawing, part: parts.Part) -> parts.Pictures | None:
        if faults:
            raise faults.pop()
        return await real(drawing, part)

    async def first_verdict() -> bytes:
        viewer = viewers.join("somebody")
        async for message in viewers.messages(viewer):
            if message.startswith(b"event: verdict"):
                return message
        raise AssertionError("the page has ended")

    monkeypatch.setattr(Drawing, "pictures", pictures)
    assert b'"frame": 0' in asyncio.run(asyncio.wait_for(first_verdict(), 60))
    assert "a part cannot be shown" in caplog.text
    drawing.close()
    state.write(*verdict(1))
    late = state.parts.newest("left")
    assert late is not None and asyncio.run(real(drawing, late)) is None, "the page has closed"


def test_the_history_is_sent_once(
    server: PageServer, watch: Watch, message: Message, wait: Wait, status: Status
) -> None:
    wait(lambda: status(server)["cameras"][0]["frames"] > 10)
    viewer = watch(server)
    found = [
        part["id"] for _ in range(3) for part in message(viewer, "status")["cameras"][0]["parts"]
    ]
    assert len(found) > 10 and len(set(found)) == len(found)
    numbers = np.array([int(name.partition("-")[2]) for name in found])
    assert (np.diff(numbers) > 0).all()


def test_the_page_closes_quietly_under_its_viewers(
    server: PageServer, watch: Watch, message: Message, server_log: pytest.LogCaptureFixture
) -> None:
    viewers = [watch(server) for _ in range(3)]
    for viewer in viewers:
        message(viewer, "status")
    server.close()
    server._server._thread.join(60)
    assert not server._server._thread.is_alive()
    for viewer in viewers:
        while viewer.readline():
            pass
    assert [record for record in server_log.records if record.exc_info] == []


def test_a_list_of_anomalous_parts_costs_little(
    info: ModelInfo, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(parts, "monotonic", lambda: now[0])
    drawing = Drawing(640)
    state = PageState({"left": 1}, lambda camera: info, drawing.keep)
    for number in range(500):
        state.write(*verdict(number))
        if number == 400:
            now[0] = 1.0  # all the others come within a moment
    drawing._pool.submit(lambda: None).result()
    assert [part.captured.number for part in state.parts.anomalous(24)] == [401]
    drawing.close()
