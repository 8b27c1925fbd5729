"""Whole processes whose outputs go wrong: webhooks that refuse, redirect or drip, damaged files."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("edge_ad.cli", reason="the command line is not installed")

# At the end of a stream, a receiver in this process may be slow on a busy machine.
RUN = (
    "from edge_ad_runtime.outputs import remote; remote._CLOSE_SECONDS = 60.0; "
    "from edge_ad.cli import main; main()"
)
COMMAND = (sys.executable, "-c", RUN, "stream")


@dataclass
class Server:
    """An HTTP server: what it got, and how it answers."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    url: str = ""
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)

    def verdicts(self) -> list[int]:
        """Return the frame numbers of what it got, but for events.

        What came twice counts once: an answer that was late, and is known by its id.
        """
        bodies = [json.loads(body) for _, _, body in self.requests if body]
        return list({body["id"]: body["frame"] for body in bodies if "event" not in body}.values())


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    pytest.importorskip("httpx", reason="no httpx: pip install 'edge-ad[webhook]'")
    running = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> Server:
        server = Server(answer)

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                self.close_connection = True
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                server.requests.append((self.command, dict(self.headers), body))
                server.answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        listener.daemon_threads = True
        server.url = f"http://127.0.0.1:{listener.server_address[1]}/hook"
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        running.append(listener)
        return server

    yield start
    for listener in running:
        listener.shutdown()
        listener.server_close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@dataclass
class Parts:
    """Pictures and a model in a folder, and the way to stream them."""

    folder: Path
    model: Path
    plugin: Path

    def stream(self, tables: str, *, seconds: float = 200) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(tables),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment(),
            check=False,
        )

    def start(self, tables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(tables),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )

    def command(self, tables: str) -> list[str]:
        name = f"stream-{time.monotonic_ns()}.toml"
        (self.folder / name).write_text(
            f"model = '{self.model}'\nthreads = 1\n{tables}\n"
            + ("" if "[[camera]]" in tables else "[[camera]]\nname = 'left'\nsource = 'parts'\n")
        )
        return [*COMMAND, "--config", name]

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(self.plugin), os.environ.get("PYTHONPATH"))))
        return os.environ | {"EDGE_AD_WEBHOOK_TOKEN": "s3cret-token", "PYTHONPATH": path}


@pytest.fixture
def parts(tmp_path: Path, model: Path, plugin: Path) -> Parts:
    """21 pictures, of which every other one is anomalous."""
    (tmp_path / "parts").mkdir()
    for number in range(21):
        frame = np.full((48, 96, 3), 150 if number % 2 else 50, np.uint8)
        cv2.imwrite(str(tmp_path / f"parts/{number:02}.png"), frame)
    return Parts(tmp_path, model, plugin)


def events(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """Return the events about outputs."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line.get("event", "").startswith("output")]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def waiting(spool: Path) -> int:
    base = sqlite3.connect(spool)
    count = int(base.execute("SELECT COUNT(*) FROM message").fetchone()[0])
    base.close()
    return count


def test_a_webhook_that_refuses_everything_is_told_once(
    serve: Callable[..., Server], parts: Parts
) -> None:
    server = serve(status(400))
    done = parts.stream(f"[webhook]\nurl = '{server.url}'\ntimeout = 60")
    assert server.verdicts() == list(range(21))
    assert len(server.requests) < 25
    assert [event["event"] for event in events(done)] == ["output failed"]
    assert "lost 21 verdicts" in done.stderr and done.returncode == 1


def test_a_wrong_token_or_address_loses_nothing(serve: Callable[..., Server], parts: Parts) -> None:
    server = serve(status(401))
    done = parts.stream(f"[webhook]\nurl = '{server.url}'\ntimeout = 60\nspool = 'hook.spool'")
    assert done.returncode == 0, done.stderr
    assert [event["event"] for event in events(done)] == ["output failed"]
    assert waiting(parts.folder / "hook.spool") == 21
    server.requests.clear()
    server.answer = status(204)
    parts.stream(f"[webhook]\nurl = '{server.url}'\ntimeout = 60\nspool = 'hook.spool'")
    assert server.verdicts() == [*range(21), *range(21)]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_loses_nothing(
    serve: Callable[..., Server], parts: Parts, code: int
) -> None:
    other = serve(status(200))
    server = serve(status(code, Location=other.url))
    done = parts.stream(f"[webhook]\nurl = '{server.url}'\ntimeout = 60\nspool = 'hook.spool'")
    assert other.requests == []
    assert [event["event"] for event in events(done)] == ["output failed"]
    assert "redirect" in events(done)[0]["message"]
    assert "s3cret" not in done.stdout + done.stderr
    assert {method for method, _, _ in server.requests} == {"POST"}
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {
        "Bearer s3cret-token"
    }
    assert waiting(parts.folder / "hook.spool") == 21


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def drip(handler: BaseHTTPRequestHandler) -> None:
    try:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.2)
    except OSError:
        return  # the other side gave up, as it should


@pytest.mark.parametrize("answer", [no_http, drip, status(200, Content_Length="-1\x00")])
def test_an_answer_that_is_none_is_told_and_the_verdicts_arrive_later(
    serve: Callable[..., Server], parts: Parts, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server = serve(answer)
    camera = "stall_timeout = 0\n[[camera]]\nname = 'left'\nsource = 'quick:left'\nevery = 20"
    with parts.start(f"{camera}\n[webhook]\nurl = '{server.url}'\ntimeout = 0.5") as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            failed = next(line for line in lines if "output failed" in line)
            server.requests.clear()
            server.answer = status(200)
            wait_for(lambda: len(server.verdicts()) > 21)
            process.send_signal(signal.SIGTERM)
            rest, log = process.communicate(timeout=120)
        finally:
            process.kill()
    assert "hook cannot be reached" in failed
    assert process.returncode == 0 and "Traceback" not in log
    # The first line may lack what was read together with the one before it.
    last = json.loads([line for line in rest.splitlines() if "event" not in line][-1])["frame"]
    # A late answer at the stop leaves the rest for the next start.
    judged, sent = list(range(0, last + 1, 20)), server.verdicts()
    assert sent == judged[: len(sent)], log
    assert len(sent) + waiting(parts.folder / "edge-ad-webhook.spool") >= len(judged)


def test_a_damaged_spool_is_set_aside_and_what_is_readable_is_sent(
    serve: Callable[..., Server], parts: Parts
) -> None:
    server = serve(status(503))
    table = f"[webhook]\nurl = '{server.url}'\ntimeout = 60\nspool = 'hook.spool'"
    parts.stream(table)
    spool = parts.folder / "hook.spool"
    assert waiting(spool) == 21
    spool.write_bytes(spool.read_bytes()[:-4096])
    server.requests.clear()
    server.answer = status(200)
    done = parts.stream(table)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert [event["event"] for event in events(done)] == ["output failed"]
    assert "damaged" in events(done)[0]["message"]
    assert list(parts.folder.glob("hook.spool.damaged-*"))
    assert server.verdicts()[-21:] == list(range(21))


def test_two_streams_never_share_a_spool(serve: Callable[..., Server], parts: Parts) -> None:
    server = serve(status(503))
    table = f"[webhook]\nurl = '{server.url}'\ntimeout = 60"
    camera = "[[camera]]\nname = 'left'\nsource = 'quick:left'"
    with parts.start(f"{camera}\n{table}") as first:
        try:
            assert first.stdout is not None
            first.stdout.readline()
            second = parts.stream(table)
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=120)
        finally:
            first.kill()
    assert second.returncode == 1 and second.stdout == ""
    assert "edge-ad-webhook.spool is in use by another stream" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0


def test_a_later_run_replaces_no_picture_of_an_earlier_one(parts: Parts) -> None:
    for _ in range(2):
        done = parts.stream("[pictures]\nfolder = 'kept'\nkeep = 'all'")
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (parts.folder / "kept").iterdir())
    assert len(names) == 42 and {"000000-00.jpg", "000000-00-2.jpg"} <= set(names)


def test_a_torn_last_line_stays_by_itself(parts: Parts) -> None:
    path = parts.folder / "verdicts.jsonl"
    path.write_text('{"frame": 1}\n{"frame": 2, "sco')
    assert parts.stream("[json]\npath = 'verdicts.jsonl'").returncode == 0
    lines = path.read_text().splitlines()
    assert lines[1] == '{"frame": 2, "sco'
    assert [json.loads(line)["frame"] for line in lines[2:]] == list(range(21))


def test_what_lies_in_the_folder_of_pictures_stops_nothing(parts: Parts) -> None:
    kept = parts.folder / "kept"
    (kept / "other").mkdir(parents=True)
    (kept / "000001-gone.jpg").symlink_to("nowhere")
    (kept / "other/000002-self.jpg").symlink_to("000002-self.jpg")
    (kept / ".edge-ad-killed.tmp").write_bytes(b"half a picture")
    (kept / "other/.edge-ad-killed.tmp").write_bytes(b"half a picture")
    done = parts.stream("[pictures]\nfolder = 'kept'\nmax_count = 5")
    assert done.returncode == 0, done.stderr
    assert not list(kept.rglob(".edge-ad-*"))
    assert sum(not path.is_symlink() for path in kept.glob("*.jpg")) == 5
    assert (kept / "000001-gone.jpg").is_symlink()


def test_no_camera_name_leads_out_of_the_folder_of_pictures(parts: Parts) -> None:
    cameras = "".join(
        f"[[camera]]\nname = '{name}'\nsource = 'parts'\n" for name in ("..", "../up", "a/b", "x")
    )
    done = parts.stream(f"{cameras}[pictures]\nfolder = 'kept'\nkeep = 'all'")
    assert done.returncode == 0, done.stderr
    assert len(list((parts.folder / "kept").glob("*/*.jpg"))) == 84
    assert not list(parts.folder.glob("*.jpg")) and not (parts.folder / "up").exists()


def test_a_picture_taller_than_a_jpeg_can_be(parts: Parts) -> None:
    tall = np.full((66_000, 20, 3), 200, np.uint8)
    cv2.imwrite(str(parts.folder / "parts/00.png"), tall)
    done = parts.stream("[pictures]\nfolder = 'kept'\nkeep = 'all'")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert len(list((parts.folder / "kept").iterdir())) == 21
    shown = cv2.imread(str(parts.folder / "kept/000000-00.jpg"))
    assert shown is not None and shown.shape[0] == 65_500
    predict = [*COMMAND[:-1], "predict", str(parts.model), "parts", "--output", "shown"]
    again = subprocess.run(
        predict, cwd=parts.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0 and "Traceback" not in again.stderr, again.stderr
    assert (parts.folder / "shown/000000-00.jpg").exists()
