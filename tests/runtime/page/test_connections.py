"""Clients that connect and do not ask: a real process, real sockets, few descriptors."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="no starlette: pip install 'edge-ad[serve]'")
pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'edge-ad[serve]'")

from edge_ad_runtime.page.server import Connection, PageServer

if not Path("/proc/self/fd").exists():
    pytest.skip("no /proc to count descriptors in", allow_module_level=True)

pytestmark = pytest.mark.slow
RUN = "from edge_ad.cli import main; main()"
DESCRIPTORS = 300
HALF_SENT = b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Half: "
HALF_BODY = (
    b"POST /threshold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n{"
)
Wait = Callable[..., None]


class Running:
    """A stream in a process that may have 300 descriptors, over a folder that is watched."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.parts = folder / "parts"
        self.lines = folder / "verdicts.jsonl"
        self.parts.mkdir()
        config = folder / "line.toml"
        config.write_text(
            f'model = "{model}"\nstdout = false\nthreads = 1\n'
            f'[[camera]]\nsource = "{self.parts}"\nwatch = true\n'
            f'[json]\npath = "{self.lines}"\n[serve]\nport = 0\n'
        )
        command = f'ulimit -n {DESCRIPTORS}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "-", sys.executable, "-c", RUN, "stream", "--config", config],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        self.address = self._address()
        self._dropped = 0

    def _address(self) -> tuple[str, int]:
        assert self.process.stderr is not None
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r"live page on http://([\d.]+):(\d+)/", line):
                return found[1], int(found[2])
        raise AssertionError("".join(lines))

    def drop_parts(self, count: int) -> None:
        for _ in range(count):
            self._dropped += 1
            picture = np.full((48, 96, 3), self._dropped % 90, np.uint8)
            cv2.imwrite(str(self.parts / "part.new.png"), picture)
            os.replace(self.parts / "part.new.png", self.parts / f"{self._dropped:04}.png")

    def judged(self) -> int:
        """How many of the parts that were dropped have a verdict."""
        lines = self.lines.read_text().splitlines() if self.lines.exists() else []
        paths = [json.loads(line).get("path", "") for line in lines]
        return len({path for path in paths if "new" not in path and path})

    def is_complete(self) -> bool:
        return self.judged() == self._dropped

    def health(self) -> int:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        code = connection.getresponse().status
        connection.close()
        return code

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def close(self) -> str:
        self.process.terminate()
        assert self.process.stderr is not None
        rest = self.process.stderr.read()
        self.process.wait(60)
        self.process.stderr.close()
        return rest


@pytest.fixture
def running(model: Path, tmp_path: Path) -> Iterator[Running]:
    pytest.importorskip("edge_ad.cli", reason="the command line is not installed")
    assert shutil.which("bash")
    found = Running(model, tmp_path)
    yield found
    if found.process.poll() is None:
        found.close()


@pytest.mark.parametrize("sent", [b"", HALF_SENT, HALF_BODY])
def test_clients_that_never_finish_asking_starve_nothing(
    running: Running, wait: Wait, sent: bytes
) -> None:
    with ExitStack() as opened:
        for _ in range(400):
            client = socket.socket()
            opened.callback(client.close)
            client.setblocking(False)
            client.connect_ex(running.address)
            try:
                client.send(sent)
            except OSError:
                pass  # not connected yet, or refused already
        most = 0
        for _ in range(5):
            running.drop_parts(3)
            # In time, though there are more clients than descriptors.
            assert running.health() == 200
            most = max(most, running.descriptors())
            time.sleep(0.1)
        wait(running.is_complete)
        assert most < DESCRIPTORS - 100
    assert "output" not in running.close()
    assert running.is_complete()


def test_idle_clients_keep_nobody_out(running: Running) -> None:
    with ExitStack() as opened:
        for _ in range(100):
            opened.enter_context(socket.create_connection(running.address, 60))
        for _ in range(10):
            assert running.health() == 200


def test_half_a_request_is_cut_off(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "answer_seconds", 1e6)  # an answer may take longer
    started = time.monotonic()
    with socket.create_connection(server.address, 60) as client:
        client.sendall(HALF_SENT)
        try:
            assert client.recv(100) == b""
        except ConnectionResetError:
            pass
        assert time.monotonic() - started > 3


def test_a_server_that_stood_still_cuts_nobody_off() -> None:
    """The request may have come meanwhile, and is read after this look."""
    now, cut_off = [0.0], list[float]()
    connection = Connection.__new__(Connection)
    connection.loop = SimpleNamespace(time=lambda: now[0], call_later=lambda *_: None)  # type: ignore[assignment]
    connection.transport = SimpleNamespace(abort=lambda: cut_off.append(now[0]))  # type: ignore[assignment]
    connection.cycle = None  # type: ignore[assignment]
    connection._since = connection._looked_at = 0.0
    connection._stuck_since = None
    now[0] = 30.0
    connection._look()
    assert cut_off == []
    while not cut_off:
        now[0] += 1.0
        connection._look()
    assert 34 < cut_off[0] < 37, "its own time begins again"


def test_half_a_body_is_answered(running: Running) -> None:
    with socket.create_connection(running.address, 60) as client:
        client.sendall(HALF_BODY)
        assert b"400" in client.recv(100)
