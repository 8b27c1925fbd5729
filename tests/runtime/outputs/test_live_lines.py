"""Standard output whose reader is stuck, slow or gone."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_ad_runtime import CapturedFrame, Result
from edge_ad_runtime.outputs import queued
from edge_ad_runtime.outputs.queued import LiveLines

MakeVerdict = Callable[..., tuple[CapturedFrame, Result]]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Ends to read and to write, a page in between."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def put(lines: LiveLines, verdict: tuple[CapturedFrame, Result]) -> bool:
    """Write a verdict; return whether the output took it without complaint."""
    try:
        lines.write(*verdict)
    except BrokenPipeError:
        raise
    except OSError:
        return False
    return True


def test_nobody_waits_for_a_stuck_reader_and_the_newest_lines_are_kept(
    pipe: tuple[int, int], verdict: MakeVerdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "_CLOSE_SECONDS", 60.0)
    reader, writer = pipe
    lines = LiveLines(writer, limit=10)
    taken = sum(put(lines, verdict(number)) for number in range(200))
    # Now the reader comes back.
    texts: list[str] = []
    with open(reader, closefd=False) as file:
        reading = threading.Thread(target=lambda: texts.extend(file))
        reading.start()
        lines.close()
        os.close(writer)
        reading.join(60)
    found = [json.loads(text)["frame"] for text in texts]
    assert found == sorted(found) and len(found) == taken < 100
    assert found[-10:] == list(range(190, 200))


def test_that_the_reader_has_gone_is_told(pipe: tuple[int, int], verdict: MakeVerdict) -> None:
    reader, writer = pipe
    lines = LiveLines(writer)
    os.close(reader)
    deadline = time.monotonic() + 60
    with pytest.raises(BrokenPipeError):
        while time.monotonic() < deadline:
            put(lines, verdict())
            time.sleep(0.001)
    lines.close()


def test_a_stream_goes_on_though_nobody_reads_it(
    model: Path, plugin: Path, pipe: tuple[int, int], tmp_path: Path
) -> None:
    kept = tmp_path / "verdicts.jsonl"
    config = tmp_path / "line.toml"
    config.write_text(
        f"model = '{model}'\nthreads = 1\n[[camera]]\nname = 'left'\nsource = 'quick:left'\n"
        f"[json]\npath = '{kept}'\n"
    )
    run = "from edge_ad.cli import main; main()"
    command = [sys.executable, "-c", run, "stream", "--config", str(config)]
    with subprocess.Popen(
        command,
        stdout=pipe[1],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(plugin)},
    ) as process:
        try:
            wait_for(lambda: kept.exists() and kept.read_text().count("\n") > 1500)
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, log
    assert (
        "the output standard output failed" in log
        and "was dropped" in log
        and "Traceback" not in log
    )
    verdicts = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sum("event" not in line for line in verdicts) > 1400


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
