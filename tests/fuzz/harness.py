"""Feed mutated inputs to one part of the program after the other, in a process with limits.

    python -m tests.fuzz.harness                              # 10,000 inputs of each kind
    python -m tests.fuzz.harness config --count 500           # of one kind
    python -m tests.fuzz.harness config --first 123 --count 1 # one input again

A kind of input is a module `target_NAME.py` beside this one with a class `Fuzz`, a `Target`.
"""

import argparse
import importlib
import json
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edge_ad_runtime.errors import EdgeAdError

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SECONDS = 10.0
"""What one input may take."""
START_SECONDS = 120.0
MEMORY = 2 * 1024**3
"""Bytes that may be allocated beyond what the imports took."""
_MOST_FINDINGS = 20


class Target(ABC, Generic[T]):
    """One kind of input."""

    @abstractmethod
    def seeds(self, folder: Path) -> Sequence[T]:
        """Return good inputs, at least one; `folder` is empty and stays."""

    @abstractmethod
    def mutate(self, rng: random.Random, seed: T) -> T:
        """Return a broken input made of a good one, which is not changed."""

    @abstractmethod
    def run(self, data: T, folder: Path) -> None:
        """Use the input as the program does; `folder` is the one of `seeds`.

        Raises:
            EdgeAdError: the input was refused with a sentence. Anything else is a finding.
        """


@dataclass(frozen=True)
class Finding:
    """An input that was not handled: number and what happened."""

    index: int
    what: str


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with a few flips, cuts, repetitions, insertions or zeros."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64, 512)), len(changed) - place)
        kind = rng.randrange(6)
        if kind == 0 and length:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length] * rng.choice((1, 2, 50))
        elif kind == 3:
            changed[place:place] = rng.randbytes(rng.choice((1, 2, 4, 64)))
        elif kind == 4:
            changed[place : place + length] = bytes(length)
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def names() -> list[str]:
    """Return the kinds of input that there are."""
    found = [path.stem.removeprefix("target_") for path in ROOT.glob("tests/fuzz/target_*.py")]
    return sorted(name for name in found if not name.startswith("_"))


def fuzz(name: str, *, count: int, first: int = 0, seed: int = 0) -> list[Finding]:
    """Run mutated inputs in a process of their own, which is started again when it dies."""
    findings: list[Finding] = []
    end = first + count
    while first < end and len(findings) < _MOST_FINDINGS:
        command = [sys.executable, "-m", "tests.fuzz.harness", name, "--child"]
        command += ["--first", str(first), "--count", str(end - first), "--seed", str(seed)]
        with tempfile.TemporaryFile() as log:
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log) as process:
                last, death = _follow(process, findings)
            if death:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                tail = log.read().decode(errors="replace")
                findings.append(Finding(index=last, what=f"{death}\n{tail}"))
                if last < first:
                    break
        first = last + 1
    return findings


def _follow(process: "subprocess.Popen[bytes]", findings: list[Finding]) -> tuple[int, str]:
    """Read what the child tells; return the last input it began, and how the child died."""
    last, seconds, told = -1, START_SECONDS, b""
    with selectors.DefaultSelector() as selector:
        pipe = selector.register(process.stdout or sys.stdin, selectors.EVENT_READ).fd
        while True:
            line, end, rest = told.partition(b"\n")
            if end:
                told, found = rest, json.loads(line)
                if isinstance(found, int):
                    last, seconds = found, SECONDS
                else:
                    findings.append(Finding(index=last, what=found))
            elif not selector.select(seconds):
                process.kill()
                return last, f"took longer than {seconds:g} s"
            elif data := os.read(pipe, 65_536):
                told += data
            else:
                code = process.wait()
                return last, "" if code == 0 else f"the process died with exit code {code}"


def _child(name: str, first: int, count: int, seed: int) -> None:
    # What the tested code prints must not mix with what this process tells.
    telling = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    target: Target[object] = importlib.import_module(f"tests.fuzz.target_{name}").Fuzz()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        seeds = target.seeds(folder)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for index in range(first, first + count):
            print(index, file=telling, flush=True)
            rng = random.Random(f"{name} {seed} {index}")
            try:
                target.run(target.mutate(rng, rng.choice(seeds)), folder)
            except EdgeAdError:
                continue
            except Exception:  # noqa: BLE001  (what is looked for)
                print(json.dumps(traceback.format_exc()), file=telling, flush=True)


def main() -> None:
    """Run the kinds that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.names[0], options.first, options.count, options.seed)
        return
    failed = 0
    for name in options.names or names():
        found = fuzz(name, count=options.count, first=options.first, seed=options.seed)
        failed += len(found)
        print(f"{name}: {options.count} inputs, {len(found)} findings", flush=True)
        for finding in found:
            print(f"--- {name} {finding.index} (seed {options.seed})\n{finding.what}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
