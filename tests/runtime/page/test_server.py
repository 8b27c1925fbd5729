"""What the page's server answers, changes and refuses."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import CapturedFrame, DataError, FakeCamera, Frame, ModelInfo, Result
from edge_ad_runtime.events import Event
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.outputs.base import event_fields
from edge_ad_runtime.stream import build
from edge_ad_runtime.stream.config import ServeConfig, parse_config
from edge_ad_runtime.stream.stream import Stream

pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page import marks
from edge_ad_runtime.page.guard import Guard, token_for
from edge_ad_runtime.page.parts import Drawing
from edge_ad_runtime.page.server import PageServer, local_url
from edge_ad_runtime.page.state import Known, News, PageState

TOKEN = "a-token-for-this-test"
MISSED = {"mark": "missed"}
Ask = Callable[..., tuple[int, str, dict[str, str]]]
Wait = Callable[..., None]
Status = Callable[[PageServer], dict[str, Any]]
Verdict = Callable[..., tuple[CapturedFrame, Result]]


def test_status_health_and_metrics(
    server: PageServer, ask: Ask, wait: Wait, status: Status
) -> None:
    wait(lambda: all(camera["anomalous"] for camera in status(server)["cameras"]))
    wait(lambda: status(server)["gallery"])
    found = status(server)
    left = found["cameras"][0]
    assert (left["name"], left["threshold"], left["lost"]) == ("left", 60.0, False)
    assert (left["state"], left["threshold_set_by"]) == ("running", None)
    # A verdict may come while the answer is put together.
    assert 0 <= left["frames"] - len(left["scores"]) <= 1
    assert 0 <= left["shift"]["frames"] - left["frames"] <= 1
    assert ask(server, "/healthz")[:2] == (200, '{"ok":true,"lost":[]}')
    metrics = ask(server, "/metrics")[1]
    assert 'edge_ad_frames_total{camera="left"}' in metrics
    assert 'edge_ad_camera_up{camera="right"} 1.0' in metrics
    assert "edge_ad_score" in metrics
    part = found["gallery"][0]
    assert part["anomalous"]
    for name, kind in (("plain.jpg", "jpeg"), ("heat.png", "png"), ("small.jpg", "jpeg")):
        assert ask(server, f"/part/{part['id']}/{name}")[2]["content-type"] == f"image/{kind}"
    assert json.loads(ask(server, f"/part/{part['id']}")[1])["frame"] == part["frame"]
    assert ask(server, "/part/elsewhere-1/plain.jpg")[0] == 404
    assert ask(server, f"/part/{part['id']}/other.jpg")[0] == 404


def test_a_limit_belongs_to_one_camera(
    server: PageServer, stream: Stream, ask: Ask, status: Status
) -> None:
    told = _Told()
    stream.delivery.add(told)
    body = {"camera": "left", "threshold": 90, "who": "  Ada\nL. "}
    assert json.loads(ask(server, "/threshold", body=body)[1]) == {
        "camera": "left",
        "threshold": 90,
    }
    left, right = status(server)["cameras"]
    assert (left["threshold"], left["model_threshold"]) == (90, 60)
    assert left["threshold_set_by"] == "Ada L. at 127.0.0.1"
    assert (right["threshold"], right["threshold_set_by"]) == (60, None)
    changed = next(event for event in told.events if event.kind == "threshold changed")
    assert changed.details["who"] == "Ada L. at 127.0.0.1"
    assert ask(server, "/threshold", body={"camera": "left", "threshold": None})[0] == 200
    assert stream.info_of("left").threshold == 60


class _Told:
    """Notes the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        pass

    def event(self, event: Event) -> None:
        self.events.append(event)


def test_a_client_that_leaves_in_the_middle_of_a_body(
    server: PageServer, ask: Ask, wait: Wait, server_log: pytest.LogCaptureFixture
) -> None:
    head = b"POST /shift HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(5):
        with socket.create_connection(server.address, 60) as client:
            client.sendall(head + b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.1)
    time.sleep(0.3)
    assert ask(server, "/healthz")[0] == 200
    assert [record for record in server_log.records if record.exc_info] == []


# A shift needs no threshold, so these are wrong elsewhere only.
FINE_FOR_A_SHIFT = (
    b'{"camera": "left"}',
    b'{"camera": "left", "threshold": "x"}',
    b'{"camera": "left", "threshold": "90"}',
    b'{"camera": "left", "threshold": true}',
    b'{"camera": "left", "threshold": NaN}',
    b'{"camera": "left", "threshold": Infinity}',
    b'{"camera": "left", "threshold": 1' + 400 * b"0" + b"}",
)
BAD_BODIES = [
    b'{"camera": "nobody", "threshold": 1}',
    b'{"camera": "left"}',
    b"[]",
    b"{",
    b"",
    b'{"camera": "left", "threshold": "x"}',
    b'{"camera": "left", "threshold": "90"}',
    b'{"camera": "left", "threshold": true}',
    b'{"camera": "left", "threshold": NaN}',
    b'{"camera": "left", "threshold": Infinity}',
    b'{"camera": "left", "threshold": 1' + 400 * b"0" + b"}",
    b'{"camera": "\\ud800", "threshold": 1}',
    b'{"camera": "left", "threshold": 1, "who": "\\udfff"}',
    b'{"camera": ["left"], "threshold": 1}',
    b'{"camera": "left", "threshold": 1, "who": "' + 5000 * b"b" + b'"}',
    4000 * b"[",
    b'{"camera": ' + 1500 * b"[" + 1500 * b"]" + b', "threshold": 1}',
    b'{"camera": "left\xff", "threshold": 1}',
]


def test_bodies_that_cannot_be_used(server: PageServer, stream: Stream, ask: Ask) -> None:
    for data in BAD_BODIES:
        for path in ("/threshold", "/mark", "/shift"):
            if path == "/shift" and data in FINE_FOR_A_SHIFT:
                continue
            code, text, _ = ask(server, path, data=data)
            assert (code, list(json.loads(text))) == (400, ["error"]), (path, data[:80])
    assert stream.info_of("left").threshold == 60


ODD_PATHS = [
    "/part/" + 5000 * "9",
    "/part/" + 5000 * "9" + "/plain.jpg",
    "/camera/" + 5000 * "9",
    "/gallery/" + 5000 * "9",
    "/part/%ED%A0%80/plain.jpg",
    "/part/%00/plain.jpg",
    "/%2e%2e/%2e%2e/server.py",
    "/../server.py",
    "/%00",
    "/" + 3000 * "a/",
    "/?token=%ff%00",
]


def test_paths_that_lead_nowhere(server: PageServer, ask: Ask) -> None:
    for path in ODD_PATHS:
        codes = (200,) if path.startswith("/?") else (400, 404)
        assert ask(server, path)[0] in codes, path[:80]
        assert ask(server, "/healthz")[0] == 200


def test_a_mark_saves_the_frame_with_its_label(
    server: PageServer, stream: Stream, ask: Ask, wait: Wait, status: Status, tmp_path: Path
) -> None:
    told = _Told()
    stream.delivery.add(told)
    wait(lambda: status(server).get("gallery"))
    part = status(server)["gallery"][0]
    body = {"id": part["id"], "mark": "false alarm", "who": "Ada"}
    code, text, _ = ask(server, "/mark", body=body)
    assert code == 200, text
    path = Path(json.loads(text)["path"])
    assert path.parent == tmp_path / "marks" / "plate" / "train" / "good"
    picture = cv2.imread(str(path))
    assert picture is not None and picture.shape == (480, 640, 3)
    document = json.loads(path.with_suffix(".json").read_text())
    assert (document["mark"], document["label"]) == ("false alarm", "good")
    assert (document["frame"], document["camera"]) == (part["frame"], part["camera"])
    assert (document["score"], document["who"]) == (part["score"], "Ada at 127.0.0.1")
    code, text, _ = ask(server, "/mark", body=body | {"mark": "missed"})
    assert not path.exists() and Path(json.loads(text)["path"]).parent.name == "missed"
    assert ask(server, "/mark", body=body | {"mark": None})[0] == 200
    assert [item for item in (tmp_path / "marks").rglob("*") if item.is_file()] == []
    marks = [event for event in told.events if event.kind == "verdict marked"]
    assert [event.details["mark"] for event in marks] == ["false alarm", "missed", None]
    assert marks[0].message.endswith("was marked as a false alarm by Ada at 127.0.0.1")
    assert marks[0].camera == part["camera"] and marks[0].details["frame"] == part["frame"]
    assert marks[0].details["picture"] == str(path) and "picture" not in marks[2].details
    assert ask(server, "/mark", body=body | {"mark": "ugly"})[0] == 400
    assert ask(server, "/mark", body=body | {"id": "elsewhere-1"})[0] == 400


def test_two_people_who_mark_one_part_at_once_leave_one_mark(
    server: PageServer,
    stream: Stream,
    ask: Ask,
    wait: Wait,
    status: Status,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part that is in both folders would be learnt as good, and be missed in the test."""
    told = _Told()
    stream.delivery.add(told)
    wait(lambda: status(server).get("gallery"))
    body = {"id": status(server)["gallery"][0]["id"]}
    other = threading.Thread(target=ask, args=(server, "/mark"), kwargs={"body": body | MISSED})

    def late(*arguments: Any) -> None:
        if other.ident is None:  # in the middle of the first mark
            other.start()
            other.join(0.3)
        write_whole(*arguments)

    monkeypatch.setattr(marks, "write_whole", late)
    assert ask(server, "/mark", body=body | {"mark": "false alarm"})[0] == 200
    other.join(60)
    (picture,) = (tmp_path / "marks").rglob("*.png")
    assert picture.parent.name == "missed" and picture.with_suffix(".json").exists()
    last = [event for event in told.events if event.kind == "verdict marked"][-1]
    assert last.details["picture"] == str(picture)


def test_an_event_in_the_middle_of_an_answer(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = PageState({"left": 1}, stream.info_of)
    state.event(Event(kind="drift", message="", camera="left"))

    def late(event: Event) -> dict[str, object]:
        state.event(Event(kind="overload", message="", camera="left"))
        return event_fields(event)

    monkeypatch.setattr("edge_ad_runtime.page.state.event_fields", late)
    (camera,) = News(stream, state).since(Known())["cameras"]
    assert [warning["event"] for warning in camera["warnings"]] == ["drift"]


def test_marked_parts_are_pictures_that_training_reads(
    server: PageServer, ask: Ask, wait: Wait, status: Status, tmp_path: Path
) -> None:
    data = pytest.importorskip("edge_ad.data", reason="the workstation's package is not installed")
    wait(lambda: status(server).get("gallery"))
    identity = status(server)["gallery"][0]["id"]
    ask(server, "/mark", body={"id": identity, "mark": "false alarm"})
    category = data.load_category("plate", tmp_path / "marks")
    assert len(category.train) == 1


def test_a_folder_that_cannot_be_written_to_is_said(
    server: PageServer, ask: Ask, wait: Wait, status: Status, tmp_path: Path
) -> None:
    (tmp_path / "marks").write_text("a file")
    wait(lambda: status(server).get("gallery"))
    identity = status(server)["gallery"][0]["id"]
    code, text, _ = ask(server, "/mark", body={"id": identity, "mark": "missed"})
    assert code == 400 and "cannot save the picture" in json.loads(text)["error"]


def test_a_shift_begins_at_zero(
    server: PageServer, stream: Stream, ask: Ask, wait: Wait, status: Status
) -> None:
    told = _Told()
    stream.delivery.add(told)
    wait(lambda: status(server)["cameras"][0]["frames"] > 20)
    before = status(server)["cameras"][1]["shift"]["started"]
    assert ask(server, "/shift", body={"camera": "left", "who": "Ada"})[0] == 200
    left, right = status(server)["cameras"]
    assert left["shift"]["frames"] < 10 < left["frames"]
    assert right["shift"]["started"] == before < left["shift"]["started"]
    (event,) = [event for event in told.events if event.kind == "shift began"]
    assert (event.camera, event.details["who"]) == ("left", "Ada at 127.0.0.1")
    ended = event.details["ended"]
    assert isinstance(ended, dict) and ended["frames"] > 20


def test_what_a_camera_waits_for(info: ModelInfo, stream: Stream, verdict: Verdict) -> None:
    from edge_ad_runtime.page.state import Known, News

    state = PageState({"left": 1, "right": 1}, stream.info_of)
    news = News(stream, state)

    def states() -> list[str]:
        return [camera["state"] for camera in news.since(Known())["cameras"]]

    assert states() == ["no part yet", "no part yet"]
    state.event(Event(kind="camera lost", message="unplugged", camera="left"))
    state.write(*verdict(0, camera="right"))
    assert states() == ["no camera", "running"]
    state.event(Event(kind="camera lost", message="unplugged", camera="right"))
    assert states() == ["no camera", "camera lost"]
    state.event(Event(kind="scene changed", message="all is anomalous", camera="right"))
    warnings = news.since(Known())["cameras"][1]["warnings"]
    assert [warning["event"] for warning in warnings] == ["scene changed"]


def test_the_parts_that_are_kept_need_little_memory(info: ModelInfo, verdict: Verdict) -> None:
    from edge_ad_runtime.page.parts import Parts

    kept = Parts(["left", "right"], raw_bytes=5 * 48 * 96 * 3)
    drawing = Drawing(640)
    parts = []
    captured, result = verdict(0, camera="right")
    parts.append(kept.add(captured, result, info))
    for number in range(200):
        parts.append(kept.add(*verdict(number, anomalous=number % 2 == 0), info))
        if number == 100:
            assert parts[-1].draw(640) is not None
    drawing.close()
    # The newest of each camera stays, however old it is.
    assert kept.newest("right") is parts[0] and parts[0].raw is not None
    assert sum(part.raw is not None for part in parts) == 5
    assert parts[101].draw(640) is not None and parts[102].draw(640) is None
    assert kept.get(parts[101].id) is parts[101]
    assert [part.captured.number for part in kept.anomalous(3)] == [100]
    identity = parts[2].id  # a good one, long ago
    del parts
    assert kept.get(identity) is None


def test_a_busy_drawing_thread_costs_no_verdicts(
    info: ModelInfo, stream: Stream, verdict: Verdict
) -> None:
    drawing = Drawing(640)
    busy = threading.Event()
    drawing._pool.submit(busy.wait)
    state = PageState({"left": 1}, lambda camera: info, drawing.keep)
    stream.delivery.add(state)
    for number in range(50):
        stream.delivery.verdict(*verdict(number))
    assert (stream.delivery.lost, state.cameras["left"].frames) == (0, 50)
    assert state.parts.anomalous(24) == []
    busy.set()
    drawing.close()


def test_a_very_tall_picture_can_be_shown(info: ModelInfo, verdict: Verdict) -> None:
    from dataclasses import replace

    from edge_ad_runtime.page.parts import draw

    captured, result = verdict()
    frame = np.zeros((70_000, 8, 3), np.uint8)
    pictures = draw(replace(captured, frame=frame).frame, result, info, 640)
    decoded = cv2.imdecode(np.frombuffer(pictures.plain, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and max(decoded.shape) <= 640


def test_only_an_anomalous_part_has_outlines(info: ModelInfo, verdict: Verdict) -> None:
    from dataclasses import replace

    from edge_ad_runtime.page.parts import draw

    hot = np.zeros((32, 64), np.float32)
    hot[8:16, 16:32] = 200
    captured, bad = verdict(anomalous=True)
    _, good = verdict(anomalous=False)
    (outline,) = draw(captured.frame, replace(bad, anomaly_map=hot), info, 640).outlines
    xs, ys = [point[0] for point in outline], [point[1] for point in outline]
    assert (min(xs), max(xs)) == pytest.approx((0.25, 0.5), abs=0.03)
    assert (min(ys), max(ys)) == pytest.approx((0.25, 0.5), abs=0.05)
    assert draw(captured.frame, replace(good, anomaly_map=hot), info, 640).outlines == []


def test_no_triggers_where_every_frame_is_scored(server: PageServer, ask: Ask) -> None:
    assert ask(server, "/trigger", body={"id": "x"})[0] == 409


@pytest.fixture
def triggered(
    model: Path, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Stream, PageServer]]:
    """A stream that scores on demand."""

    def black() -> Iterator[Frame]:
        while not release.wait(0.05):
            yield np.zeros((48, 96, 3), np.uint8)

    monkeypatch.setattr(build, "open_source", lambda *_, **__: FakeCamera(black(), name="a"))
    document = {
        "model": str(model),
        "freeze_check": False,
        "stall_timeout": 0,
        "camera": [{"name": "left", "source": "a"}],
        "trigger": {"mode": "http", "timeout": 100},
        "serve": {"port": 0},
    }
    with Stream(parse_config(document)) as stream:
        server, stop = PageServer(stream, ServeConfig(port=0)), threading.Event()
        running = threading.Thread(target=stream.run, args=(stop,))
        running.start()
        yield stream, server
        stop.set()
        server.close()
        running.join(60)


def test_a_post_is_a_trigger(
    triggered: tuple[Stream, PageServer], ask: Ask, wait: Wait, status: Status
) -> None:
    stream, server = triggered
    assert status(server)["cameras"][0]["state"] == "waiting for a trigger"
    ids = _Ids()
    stream.delivery.add(ids)
    for identity in ("one", "two"):
        code, text, _ = ask(server, "/trigger", body={"id": identity})
        assert (code, json.loads(text)) == (202, {"trigger": identity})
    wrongs = [b'{"camera": "nowhere"}', b'{"id": "\\ud800"}', 4000 * b"[", b'{"id":' + 1900 * b"["]
    for wrong in [*wrongs, b"\xff", b'{"id": 1}']:
        assert ask(server, "/trigger", data=wrong)[0] == 400
    wait(lambda: len(ids.found) == 2)
    assert ids.found == ["one", "two"]
    wait(lambda: status(server)["cameras"][0]["state"] == "running")


class _Ids:
    """Notes the triggers of the verdicts."""

    def __init__(self) -> None:
        self.found: list[str | None] = []

    def write(self, captured: CapturedFrame, result: Result) -> None:
        self.found.append(captured.trigger)


ORIGINS: list[tuple[dict[str, str], int]] = [
    ({"Host": "evil.example"}, 403),
    ({"Host": "192.168.1.9:8080"}, 403),
    ({"Host": "localhost:8080"}, 200),
    ({"Host": "[::1]:8080"}, 200),
    ({"Host": "["}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
    (
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        },
        200,
    ),
    (
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "iframe",
        },
        403,
    ),
    ({"Host": "localhost:8080", "Referer": "http://evil.example/page"}, 403),
    ({"Host": "localhost:8080", "Referer": "http://[evil/page"}, 403),
    ({"Host": "localhost:8080", "Referer": "http://localhost:8080/"}, 200),
]


def test_who_may_ask(server: PageServer, ask: Ask) -> None:
    for headers, code in ORIGINS:
        found = ask(server, "/status", headers=headers)
        assert found[0] == code, headers
        assert "access-control-allow-origin" not in found[2]


def test_a_configured_name_reaches_the_guard(
    model: Path, stream: Stream, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {
        "model": str(model),
        "camera": [{"source": "0"}],
        "serve": {"port": 0, "names": ["line1.local"]},
    }
    config = parse_config(document).outputs.serve
    assert config is not None
    server = PageServer(stream, config)
    try:
        assert ask(server, "/status", headers={"Host": "line1.local:8080"})[0] == 200
        assert ask(server, "/status", headers={"Host": "line2.local:8080"})[0] == 403
    finally:
        server.close()


def test_a_form_of_another_page_changes_nothing(server: PageServer, ask: Ask) -> None:
    kind = {"Content-Type": "text/plain"}
    body = {"camera": "left", "threshold": 1}
    assert ask(server, "/threshold", body=body, headers=kind)[0] == 400


def test_the_policy_allows_nothing_from_elsewhere(server: PageServer, ask: Ask) -> None:
    code, text, headers = ask(server, "/")
    assert code == 200 and "<script type=" in text
    assert headers["content-security-policy"] == "default-src 'self'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"


def test_a_token_guards_the_page(stream: Stream, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AD_TOKEN", TOKEN)
    server = PageServer(stream, ServeConfig(port=0))
    try:
        assert ask(server, "/status")[0] == 401
        assert ask(server, "/healthz")[0] == 200
        assert ask(server, "/status", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert ask(server, "/status", headers={"Authorization": f"Bearer {TOKEN}x"})[0] == 401
        assert ask(server, "/status", headers={"Cookie": 'edge_ad_token="\\\xff; =;;'})[0] == 401
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


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("fe80::1", "http://[fe80::1]:8080"),
    ],
)
def test_the_address_that_is_told_can_be_opened(host: str, url: str) -> None:
    assert local_url((host, 8080)) == url


def test_a_port_in_use(server: PageServer, stream: Stream) -> None:
    with pytest.raises(DataError, match="choose another port"):
        PageServer(stream, ServeConfig(port=server.address[1]))


@pytest.mark.parametrize("others", ["a(b)=c; ", "a/b=c; path=/; ", 'x={"a":1}; ', "=; ;; "])
def test_cookies_of_other_pages_keep_nobody_out(others: str) -> None:
    """Cookies do not know ports: whatever else runs on this host sends its own along."""
    guard = Guard(None, config=ServeConfig(), token=TOKEN)
    for token, refused in ((TOKEN, False), ("x" * 20, True)):
        cookie = f"{others}edge_ad_token={token}; b=c".encode()
        headers = [(b"host", b"localhost"), (b"cookie", cookie)]
        scope = {"type": "http", "path": "/x", "query_string": b"", "headers": headers}
        assert (guard._refusal(scope) is not None) == refused
