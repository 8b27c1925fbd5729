"""Signals to a real process: bursts of SIGHUP, SIGTERM at any moment, a system without SIGHUP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX signals")

RUN = "from edge_ad.cli import main; main()"


@contextmanager
def streaming(*arguments: object, env: dict[str, str] | None = None) -> Iterator["Process"]:
    """A running `edge-ad stream`, killed at the end whatever happens."""
    command = [sys.executable, "-c", RUN, "stream", *(str(item) for item in arguments)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


Process = subprocess.Popen[bytes]


@pytest.mark.slow
def test_thousands_of_hangups_in_bursts(model: Path, tmp_path: Path) -> None:
    """Each is a reload or joins one; afterwards the stream still scores, reloads and ends."""
    watched = tmp_path / "arriving"
    watched.mkdir()
    with streaming("--camera", watched, "--watch", "--model", model, "--threads", 1) as process:
        assert process.stderr is not None and process.stdout is not None
        assert b"padim on plate" in process.stderr.readline()
        log: list[bytes] = []
        reading = threading.Thread(target=lambda: log.extend(process.stderr or ()))
        reading.start()
        until_caught(process, signal.SIGHUP)
        for burst in range(40):
            for _ in range(100):
                process.send_signal(signal.SIGHUP)
            time.sleep(0.0004 * (burst % 5))
        model.write_bytes(b"broken")
        process.send_signal(signal.SIGHUP)
        event = json.loads(process.stdout.readline())
        assert event["event"] == "model refused"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        reading.join(60)
    assert not any(b"Traceback" in line for line in log), b"".join(log)


@pytest.mark.slow
def test_a_stop_behind_a_burst_is_not_lost(model: Path, tmp_path: Path) -> None:
    watched = tmp_path / "arriving"
    watched.mkdir()
    with streaming("--camera", watched, "--watch", "--model", model, "--threads", 1) as process:
        assert process.stderr is not None
        assert b"padim on plate" in process.stderr.readline()
        until_caught(process, signal.SIGHUP)
        for _ in range(3000):
            process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_an_interrupt_while_the_threads_start() -> None:
    """An exception in the middle of their locks would hang the program, or end it with another."""
    code = """
import signal
from edge_ad.cli.signals import Signals

class Interrupted:
    def start(self, *_):
        signal.raise_signal(signal.SIGINT)

with Signals() as signals:
    signals.watch(Interrupted(), print)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize("milliseconds", [0, 50, 150, 300, 600, 1000])
def test_a_stop_while_everything_is_being_opened(
    model: Path, tmp_path: Path, milliseconds: int, number: int, code: int
) -> None:
    """A camera that never answers keeps the stream from being ready; a stop ends it cleanly."""
    listener = _silent_server()
    config = tmp_path / "line.toml"
    config.write_text(
        f"model = '{model}'\n[[camera]]\nopen_timeout = 60\n"
        f"source = 'http://127.0.0.1:{listener.getsockname()[1]}/video'\n"
    )
    with streaming("--config", config) as process:
        until_caught(process, signal.SIGTERM)
        time.sleep(milliseconds / 1000)
        process.send_signal(number)
        assert process.wait(45) == code  # it does not wait for the camera, which has 60 s
        assert process.stderr is not None
        log = process.stderr.read().decode()
    listener.close()
    assert "Traceback" not in log


def until_caught(process: Process, number: int) -> None:
    """Wait until the program has a handler: before that, the signal would end it."""
    while process.poll() is None and not _catches(process.pid, number):
        time.sleep(0.005)


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _silent_server() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    return listener


# What Windows lacks, gone before edge-ad is imported; other packages are loaded already.
WITHOUT_POSIX = """
import asyncio, concurrent.futures, multiprocessing, os, signal, socket, subprocess, sys, tempfile
import click, cv2, numpy, onnxruntime
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "pthread_sigmask", "sigwait", "setitimer"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("SOCK_CLOEXEC", "SOCK_NONBLOCK"):
    if hasattr(socket, name):
        delattr(socket, name)
for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "mkfifo", "geteuid", "getuid",
             "fork", "fchmod", "uname", "sysconf", "sched_getaffinity", "pipe2"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
"""


def test_it_streams_where_there_is_no_sighup(model: Path, pictures: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITHOUT_POSIX + RUN, "stream", "--camera", pictures),
            *("--model", model, "--output", "kept", "--json-file", "lines.jsonl"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=model.parent,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 1, 2, 3, 4]
    assert len(list((model.parent / "kept").iterdir())) == 2


def test_every_module_of_the_device_is_imported_where_there_is_no_sighup() -> None:
    code = WITHOUT_POSIX + (
        "import importlib, pkgutil, edge_ad_runtime\n"
        "from edge_ad_runtime.errors import MissingExtraError\n"
        "for module in pkgutil.walk_packages(edge_ad_runtime.__path__, 'edge_ad_runtime.'):\n"
        "    try:\n"
        "        importlib.import_module(module.name)\n"
        "    except MissingExtraError:\n"
        "        pass\n"
        "    except ModuleNotFoundError as error:\n"
        # The page's packages come with an extra; a device may have its own packages only.
        "        extra = {'starlette', 'uvicorn', 'prometheus_client'}\n"
        "        if error.name.split('.')[0] not in extra:\n"
        "            raise\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
