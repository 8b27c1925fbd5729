"""What the adapters of all tools share: a request as JSON comes in, answers as JSON go out.

An adapter runs in the environment of its tool, so that this file needs nothing but NumPy. A tool
may print whatever it likes: only lines of stdout that begin with `ANSWER` are read.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ANSWER = "answer: "

Request: TypeAlias = Mapping[str, Any]
Map: TypeAlias = NDArray[np.float32]


@dataclass
class Cost:
    """Seconds by the clock and of all threads' CPU time, once the `with` block has ended."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """Measure what runs inside the `with` block."""
    found, wall, cpu = Cost(), time.perf_counter(), time.process_time()
    yield found
    found.wall_s, found.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


@dataclass(frozen=True)
class Verdict:
    """What a tool says of one picture. `anomalous` is None where it leaves that to the user."""

    score: float
    anomalous: bool | None


@dataclass
class Fitted:
    """Figures of one training with its export; its anomaly maps lie in `maps.npz` beside the model.

    Attributes:
        fit: cost of learning from the good pictures, without scoring any test picture.
        model: the deployed file, in the folder of the request; None: it could not be exported.
        graph: an ONNX file for ONNX Runtime, in that folder.
        picks: rows that the coreset chose, and the seconds that this took.
        training: verdicts in the training framework, by the picture's path in the class folder.
        deployed: verdicts of the deployed file.
        problems: what failed on the way, in the tool's own words.
    """

    fit: Cost
    peak_mib: float
    model: str | None = None
    graph: str | None = None
    picks: tuple[int, float] | None = None
    training: dict[str, Verdict] = field(default_factory=dict)
    deployed: dict[str, Verdict] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB.

    Not that of `getrusage`: it begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def test_pictures(category: Path) -> list[Path]:
    """List the test pictures of a class, in a fixed order."""
    return sorted(path for path in (category / "test").rglob("*") if path.is_file())


def save_maps(folder: Path, maps: Mapping[str, Map]) -> None:
    """Write the anomaly maps (h, w) of the training framework for the common evaluation."""
    arrays: dict[str, Any] = dict(maps)
    np.savez(folder / "maps.npz", **arrays)


def large_frame(path: Path, side: int) -> NDArray[np.uint8]:
    """Enlarge a picture to side x side pixels: BGR, uint8, as a camera library gives it."""
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(f"cannot read {path}")
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def answer(figures: object) -> None:
    """Send one answer."""
    print(ANSWER + json.dumps(figures, default=vars), flush=True)


def serve(call: Callable[[], object]) -> None:
    """Answer each line that arrives on stdin with the milliseconds of one call, until it closes.

    So a driver can let several tools take turns, each in a process of its own.
    """
    call()
    answer({"ready": True, "rss_mib": peak_mib()})
    for _ in sys.stdin:
        with cost() as found:
            call()
        answer({"wall_ms": found.wall_s * 1000, "cpu_ms": found.cpu_s * 1000})


def run(actions: Mapping[str, Callable[[Request], object]]) -> None:
    """Carry out the request on the command line; what the action returns is the last answer."""
    request = json.loads(sys.argv[1])
    result = actions[request["do"]](request)
    if result is not None:
        answer(result)
