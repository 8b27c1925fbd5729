"""The tools that are compared, the environment of each, and how its adapter is asked."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters.protocol import ANSWER

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"

TORCH = ("torch==2.14.1", "torchvision==0.29.1")
"""What both peers run on; pinned, so that they run on the same PyTorch."""

LONGEST_WORD = 200
"""Characters of an error that go into a table."""


class PeerError(Exception):
    """A tool failed, in its own words."""


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: as in the tables.
        adapter: the module that speaks for it.
        requirements: what its documentation says to install.
        helpers: what the adapter needs beside that; it does not count as the tool's size.
        python_path: folders of our own sources that its process sees.
        own_environment: False: it runs where this program runs.
    """

    name: str
    adapter: str
    requirements: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    python_path: tuple[Path, ...] = (ROOT,)
    own_environment: bool = True

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        return ENVIRONMENTS / self.name.replace(" ", "-")

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / "bin" / "python" if self.own_environment else Path(sys.executable)

    def command(self, request: Mapping[str, Any]) -> list[str]:
        """Return the command line that carries out a request."""
        return [str(self.python), "-m", self.adapter, json.dumps(request)]

    def environment(self) -> dict[str, str]:
        """Return the variables of its process: ours, without what could change its threads."""
        path = os.pathsep.join(map(str, self.python_path))
        return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


OURS = (ROOT, ROOT / "export", ROOT / "runtime")

_ADAPTERS = "benchmarks.peers.adapters"

EDGE_AD = Tool("edge-ad", f"{_ADAPTERS}.edge_ad_adapter", python_path=OURS, own_environment=False)
DEVICE = Tool(
    "edge-ad device",
    f"{_ADAPTERS}.edge_ad_adapter",
    requirements=(f"{ROOT}[device]",),
    python_path=OURS,
)
"""edge-ad as a device has it: without PyTorch."""
ANOMALIB = Tool(
    "anomalib",
    f"{_ADAPTERS}.anomalib_adapter",
    requirements=(*TORCH, "anomalib[openvino]==2.7.0"),
    helpers=("onnxruntime",),
)
ANOMAVISION = Tool(
    "anomavision",
    f"{_ADAPTERS}.anomavision_adapter",
    requirements=(*TORCH, "anomavision==3.6.2"),
    helpers=("timm",),
)
TOOLS = (EDGE_AD, DEVICE, ANOMALIB, ANOMAVISION)


def prepare(tool: Tool) -> None:
    """Make the tool's environment unless it is complete, and note the size of what it asks for.

    Raises:
        PeerError: pip could not install it.
    """
    if not tool.own_environment or (tool.folder / "size.json").exists():
        return
    print(f"installing {tool.name} into {tool.folder}", file=sys.stderr, flush=True)
    venv.create(tool.folder, with_pip=True, clear=True)
    empty = _size_mb(tool.folder)
    _pip(tool, tool.requirements)
    size = _size_mb(tool.folder) - empty
    if tool.helpers:
        _pip(tool, tool.helpers)
    (tool.folder / "size.json").write_text(json.dumps({"installed_mb": round(size)}))


def installed_mb(tool: Tool) -> int:
    """Return the size in MB of what `prepare` installed, without pip and the adapter's helpers."""
    return int(json.loads((tool.folder / "size.json").read_text())["installed_mb"])


def version(tool: Tool, package: str) -> str:
    """Return the version of a package in the tool's environment, or `none`."""
    code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    done = subprocess.run(
        [str(tool.python), "-c", code, package], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "none"


def ask(tool: Tool, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Let the tool carry out a request in a process of its own; return its last answer.

    Raises:
        PeerError: it failed, answered nothing or took too long.
    """
    try:
        done = subprocess.run(
            tool.command(request),
            env=tool.environment(),
            cwd=request["folder"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not ready after {timeout_s:.0f} s") from error
    answers = answers_in(done.stdout.splitlines())
    if done.returncode != 0 or not answers:
        raise PeerError(f"exit code {done.returncode}: {last_words(done.stderr)}")
    return answers[-1]


class Turns(AbstractContextManager["Turns"]):
    """A process of a tool that repeats one call whenever it is its turn.

    Raises:
        PeerError: it ended instead of answering.
    """

    def __init__(self, tool: Tool, request: Mapping[str, Any]) -> None:
        """Start it and wait until it has made its first call."""
        self._process = subprocess.Popen(
            tool.command(request),
            env=tool.environment(),
            cwd=request["folder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.ready = self._answer()
        except PeerError:
            self.__exit__()
            raise

    def turn(self) -> dict[str, Any]:
        """Let it make one call; return its milliseconds."""
        if self._process.stdin is None:
            raise PeerError("it has no stdin")
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerError("it ended by itself") from error
        return self._answer()

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout or ():
            if line.startswith(ANSWER):
                return dict(json.loads(line.removeprefix(ANSWER)))
        raise PeerError(f"it ended with exit code {self._process.wait()} instead of answering")


def answers_in(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Pick the answers out of what a tool printed."""
    return [json.loads(line.removeprefix(ANSWER)) for line in lines if line.startswith(ANSWER)]


def last_words(stderr: str) -> str:
    """Return the last line of a traceback, shortened."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0]] or lines or ["no message"]
    return errors[-1][:LONGEST_WORD]


def _pip(tool: Tool, requirements: Sequence[str]) -> None:
    done = subprocess.run(
        [str(tool.python), "-m", "pip", "install", "--quiet", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PeerError(f"pip install failed: {last_words(done.stderr)}")


def _size_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6
