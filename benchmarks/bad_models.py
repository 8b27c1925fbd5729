"""Offer bad model files to `edge-ad install` beside a running stream, and count what happens.

    python -m benchmarks.bad_models --count 1000

Every file must be refused (exit code 3) or rolled back (4), the stream must give each part exactly
one verdict, all by the model that it began with, and the path must lead to that model at the end.
A good file is taken over at the end, to show that the others were refused for what they are.

    python -m benchmarks.bad_models --kills 100

offers good files instead, and kills `edge-ad install` (SIGKILL) at a random moment each time: the
path must always lead to a whole model that was offered, with the signature of its own.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from benchmarks.bad_model_files import GOOD_PICTURE, NEWER, Workshop, text
from edge_ad.cli import main
from edge_ad_runtime.model.location import signature_path
from edge_ad_runtime.model.signature import verify

MOST_WAITING = 100
"""Parts that may wait for their verdict: no more come than a busy machine can score."""


class RunningStream:
    """A running `edge-ad stream`, to whose camera a part comes every so often."""

    def __init__(self, folder: Path, settings: Path, control: Path, seconds: float) -> None:
        self.arriving = folder / "arriving"
        self.lines: list[dict[str, Any]] = []
        self.count = self.scored = 0
        command = [sys.executable, "-c", "from edge_ad.cli import main; main()"]
        self._log = (folder / "stream.log").open("w")
        self._process = subprocess.Popen(
            [*command, "stream", "--config", str(settings)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        until(control.exists)
        self._stop = threading.Event()
        self._picture = GOOD_PICTURE
        self._feeding = threading.Thread(target=self._feed, args=(seconds,))
        self._feeding.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(json.loads(line))
            self.scored += "event" not in self.lines[-1]

    def _feed(self, seconds: float) -> None:
        copy = self.arriving.parent / "part.png"
        shutil.copy(self._picture, copy)
        while not self._stop.wait(seconds):
            if self.count - self.scored < MOST_WAITING:
                os.link(copy, self.arriving / f"{self.count:07}.png")
                self.count += 1

    def verdicts(self) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if "event" not in line]

    def end(self) -> int:
        self._stop.set()
        self._feeding.join()
        until(lambda: self.scored >= self.count, 120)
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._reading.join()
        return code

    def kill(self) -> None:
        self._stop.set()
        self._process.kill()
        self._log.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the stream did not do in time what it should")
        time.sleep(0.02)


def prepare(folder: Path, workshop: Workshop) -> tuple[Path, Path, Path]:
    """Write a configuration and its model; return the configuration, the model and the socket."""
    (folder / "arriving").mkdir()
    (folder / "key.pub").write_bytes(workshop.public)
    model, control = folder / "model.onnx", folder / "socket"
    workshop.put(model, workshop.good, version=1000)
    settings = folder / "stream.toml"
    settings.write_text(
        f'model = "{model}"\ndevice = "cpu"\nthreads = 1\n'
        f'[[camera]]\nname = "camera"\nsource = "{folder / "arriving"}"\nwatch = true\n'
        f'[signature]\nkey = "{folder / "key.pub"}"\nstate_file = "{folder / "accepted.json"}"\n'
        f'[install]\nsocket = "{control}"\n'
    )
    return settings, model, control


def kill_installations(kills: int, seed: int, folder: Path) -> None:
    workshop = Workshop(folder, seed)
    settings, model, control = prepare(folder, workshop)
    offered = folder / "offered.onnx"
    known = {workshop.good}
    outcomes: Counter[str] = Counter()
    command = [sys.executable, "-c", "from edge_ad.cli import main; main()", "install"]
    stream = RunningStream(folder, settings, control, 0.05)
    try:
        for number in range(kills):
            content = workshop.built(text(backbone=f"number {number}"))
            known.add(content)
            workshop.put(offered, content, version=NEWER + number)
            before = model.read_bytes()
            started = time.monotonic()
            with subprocess.Popen(
                [*command, str(offered), "--config", str(settings)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                if number % 10 == 0:  # how long it takes on this machine at present
                    process.wait()
                    longest = 1.1 * (time.monotonic() - started)
                else:
                    time.sleep(workshop.random.uniform(0.3, 1) * longest)
                    process.kill()
            after = model.read_bytes()
            verify(after, signature_path(model).read_bytes(), workshop.public)
            assert after in known
            name = "ended before" if process.returncode == 0 else "killed"
            outcomes[f"{name}, {'new' if after == content != before else 'old'} model"] += 1
        good = CliRunner().invoke(main, ["install", str(offered), "--config", str(settings)])
        code = stream.end()
    finally:
        stream.kill()
    print(", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())))
    print(f"once more, not killed: exit code {good.exit_code}")
    report(stream, code)


def report(stream: RunningStream, code: int) -> None:
    numbers = [entry["frame"] for entry in stream.verdicts()]
    in_order = numbers == list(range(stream.count))
    print(f"parts {stream.count}, verdicts {len(numbers)}, each once and in order: {in_order}")
    print(f"exit code of the stream: {code}")


def run(count: int, seed: int, folder: Path) -> None:
    workshop = Workshop(folder, seed)
    settings, model, control = prepare(folder, workshop)
    options = ["--config", str(settings), "--shadow", "3", "--max-latency", "250"]
    codes: dict[str, Counter[int]] = {kind: Counter() for kind in workshop.kinds}
    passed: list[str] = []
    stream = RunningStream(folder, settings, control, 0.05)
    started = time.monotonic()
    try:
        offered = folder / "offered.onnx"
        for number in range(count):
            kind = list(workshop.kinds)[number % len(workshop.kinds)]
            workshop.kinds[kind](offered)
            done = CliRunner().invoke(main, ["install", str(offered), *options])
            codes[kind][done.exit_code] += 1
            if done.exit_code not in (3, 4):
                passed.append(f"{kind}: exit code {done.exit_code}, {done.output.strip()}")
            for path in (offered, offered.with_name(offered.name + ".sig")):
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
            if number < len(workshop.kinds):
                print(f"{kind}: {done.stderr.strip()}", file=sys.stderr)
            elif number % 50 == 49:
                print(f"{number + 1} offered", file=sys.stderr)
        unchanged = model.read_bytes() == workshop.good
        by_old = {entry["score"] for entry in stream.verdicts()}
        workshop.put(offered, workshop.built(text(method="newer")), version=NEWER)
        good = CliRunner().invoke(main, ["install", str(offered), *options])
        code = stream.end()
    finally:
        stream.kill()
    refusals = sum(entry.get("event") == "model refused" for entry in stream.lines)
    print(f"{'bad model':<42} refused  rolled back  other")
    for kind, found in codes.items():
        others = sum(found.values()) - found[3] - found[4]
        print(f"{kind:<42} {found[3]:>7} {found[4]:>12} {others:>6}")
    print(f"offered {count}, passed {len(passed)}, events 'model refused' {refusals}")
    report(stream, code)
    print(f"the model before unchanged: {unchanged}, scores before the good one: {by_old}")
    print(f"a good one afterwards: exit code {good.exit_code}")
    print(f"{time.monotonic() - started:.0f} s")
    for problem in passed:
        print("PASSED", problem)


def command_line() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kills:
            kill_installations(arguments.kills, arguments.seed, Path(folder))
        else:
            run(arguments.count, arguments.seed, Path(folder))


if __name__ == "__main__":
    command_line()
