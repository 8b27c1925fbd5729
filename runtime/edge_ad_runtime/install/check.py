"""Check a model file in a process of its own, which may crash, hang or fill the memory.

`check` starts this file as a program, gives it a request as JSON on standard input, and reads what
it found from standard output. The process has a low priority, and the system ends it before
anything else when memory is short, so that a stream beside it goes on.
"""

import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from edge_ad_runtime.errors import EdgeAdError, MissingExtraError, ModelFileError
from edge_ad_runtime.model.accelerator import CPU, AcceleratorConfig
from edge_ad_runtime.model.scorer import Scorer

NO_GOLDEN_FRAMES = "no golden frames in this file"

_GRACE_SECONDS = 5
"""For `check` to end the process before it ends itself."""

_TIMED = 3
"""Inferences, of which the median counts; one before them is not timed."""


@dataclass(frozen=True, kw_only=True)
class CheckRule:
    """What a model file must fulfil.

    Attributes:
        device: on which it will run.
        threads: CPU threads.
        accelerator: how a GPU is used.
        max_latency_ms: of one inference, from the frame to the verdict.
        timeout: seconds for the whole check.
    """

    device: str
    threads: int | None
    accelerator: AcceleratorConfig
    max_latency_ms: float
    timeout: float


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found in a model file that may be used.

    Attributes:
        content: sha256 of the file.
        method: of the detector.
        category: the product.
        golden_frames: how many were scored as at the export.
        latency_ms: of one inference, as far as others leave the processor to it.
        provider: of ONNX Runtime.
    """

    content: str
    method: str
    category: str
    golden_frames: int
    latency_ms: float
    provider: str


def check(model: Path, rule: CheckRule) -> Checked:
    """Check a model file.

    Raises:
        ModelFileError: it may not be used.
        MissingExtraError: a package is missing on this device.
    """
    request = asdict(rule) | {"model": str(model.absolute())}
    # The file itself, not `-m`: that would import from the working directory first.
    command = [sys.executable, __file__]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request, default=os.fspath),
            capture_output=True,
            text=True,
            check=False,
            timeout=rule.timeout,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired as error:
        raise ModelFileError(
            f"the check of the model file took more than {rule.timeout:g} s"
        ) from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelFileError(
            f"the check of the model file broke off with exit code {done.returncode} ({last[:200]})"
        ) from error
    if "error" in answer:
        missing = answer["error"] == MissingExtraError.__name__
        raise (MissingExtraError if missing else ModelFileError)(answer["message"])
    return Checked(**answer)


def _check_here(
    model: Path,
    *,
    device: str,
    threads: int | None,
    accelerator: AcceleratorConfig,
    max_latency_ms: float,
) -> Checked:
    scorer = Scorer(model, device=device, threads=threads, accelerator=accelerator)
    if scorer.golden is not None:
        scorer.golden.check(scorer)
    latency_ms = _latency_ms(scorer)
    if latency_ms > max_latency_ms:
        raise ModelFileError(
            f"one inference takes {latency_ms:.0f} ms here, more than the "
            f"{max_latency_ms:g} ms allowed: export a smaller model, or raise --max-latency"
        )
    return Checked(
        content=scorer.content,
        method=scorer.info.method,
        category=scorer.info.category,
        golden_frames=0 if scorer.golden is None else len(scorer.golden.frames),
        latency_ms=latency_ms,
        provider=scorer.provider,
    )


def _latency_ms(scorer: Scorer) -> float:
    """Time inferences. On a busy CPU, only the model's own work counts."""
    frame = np.random.default_rng(0).integers(0, 256, (*scorer.info.input_size, 3), dtype=np.uint8)
    scorer.score(frame)
    times = []
    for _ in range(_TIMED):
        started, computed = perf_counter(), process_time()
        scorer.score(frame)
        elapsed, computed = perf_counter() - started, process_time() - computed
        times.append(min(elapsed, computed) if scorer.provider == CPU else elapsed)
    return median(times) * 1000


def _give_way() -> None:
    """Let the stream beside this process have processor and memory first, where that can be set."""
    with suppress(OSError, AttributeError):
        os.nice(10)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _main() -> None:
    _give_way()
    request = json.loads(sys.stdin.read())
    # Whoever started this may have been killed, and then nobody else ends what hangs.
    signal.alarm(math.ceil(request["timeout"]) + _GRACE_SECONDS)
    accelerator = request["accelerator"]
    try:
        checked = _check_here(
            Path(request["model"]),
            device=request["device"],
            threads=request["threads"],
            accelerator=AcceleratorConfig(**accelerator | {"cache": Path(accelerator["cache"])}),
            max_latency_ms=request["max_latency_ms"],
        )
        answer = asdict(checked)
    except EdgeAdError as error:
        # The path of the candidate says nothing to the user, who knows another one.
        message = str(error).removeprefix(f"cannot use the model file {request['model']}: ")
        answer = {"error": type(error).__name__, "message": message}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
