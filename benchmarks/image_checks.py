"""What a container image must do, and the engine that runs it: for `benchmarks/image.py`.

Every container starts with a read-only root, without capabilities and without a network.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processors import PROCESSORS

HERE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
GOLDEN = Path(__file__).parents[1] / "tests/golden"
MODEL = "padim/chip-padim.onnx"
TOLERANCE = 2e-3
LARGEST_PLAIN_MB = 450

LOCKED_DOWN = (
    "--network=none --no-healthcheck --read-only --read-only-tmpfs=false --tmpfs=/tmp "
    "--cap-drop=ALL --security-opt=no-new-privileges "
    "--ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024"
).split()


class CheckFailedError(Exception):
    """An image does something else than it should."""


@dataclass(frozen=True)
class Target:
    """One image: which Dockerfile, for which processor."""

    dockerfile: str
    architecture: str

    @property
    def label(self) -> str:
        """Such as Dockerfile:amd64."""
        return f"{self.dockerfile}:{self.architecture}"

    @property
    def name(self) -> str:
        """Tag of the image."""
        return f"localhost/{self.dockerfile.lower().replace('.', '-')}:{self.architecture}"


@dataclass
class Engine:
    """Buildah and podman on a storage of their own."""

    folder: Path
    options: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Put images into the folder."""
        store, runs = self.folder / "images", self.folder / "runs"
        self.options = [f"--root={store}", f"--runroot={runs}", "--storage-driver=vfs"]

    def buildah(self, *arguments: str, cpuinfo: Path | None = None) -> str:
        """Run buildah, if need be with another /proc/cpuinfo, and return its stdout."""
        command = ["buildah", *self.options, *arguments]
        if cpuinfo is not None:
            # In a mount namespace of its own, since a volume does not reach into /proc.
            script = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", script, str(cpuinfo), *command]
        return call(command, seconds=3600).stdout.strip()

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        settings = ["--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file"]
        return call(["podman", *self.options, *settings, *arguments], check=check)

    def run(
        self,
        target: Target,
        *command: str,
        entry: str | None = None,
        options: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that may do nothing but compute, to its end."""
        entry_point = [] if entry is None else [f"--entrypoint={entry}"]
        return self.podman(
            "run",
            "--rm",
            *self.locked_down(target),
            *entry_point,
            *options,
            target.name,
            *command,
            check=False,
        )

    def cpuinfo(self, target: Target) -> Path | None:
        """Return what /proc/cpuinfo should say where a processor is emulated.

        QEMU shows the one of this machine, and importing ONNX Runtime 1.31 or newer crashes on it.
        """
        if target.architecture == HERE:
            return None
        path = self.folder / "cpuinfo"
        path.write_text(PROCESSORS["cortex-a76"].cpuinfo())
        return path

    def locked_down(self, target: Target) -> list[str]:
        """Return the options of each container."""
        cpuinfo = self.cpuinfo(target)
        return [
            *LOCKED_DOWN,
            *([f"--volume={cpuinfo}:/proc/cpuinfo:ro"] if cpuinfo else []),
            f"--volume={GOLDEN}:/golden:ro",
            f"--env=EDGE_AD_MODEL=/golden/{MODEL}",
        ]


def size(engine: Engine, target: Target) -> str:
    """Size."""
    (image,) = json.loads(engine.podman("image", "inspect", target.name).stdout)
    megabytes = image["Size"] / 1e6
    if target.dockerfile == "Dockerfile" and megabytes >= LARGEST_PLAIN_MB:
        raise CheckFailedError(f"{megabytes:.0f} MB, expected less than {LARGEST_PLAIN_MB}")
    return f"{megabytes:.0f} MB"


def user(engine: Engine, target: Target) -> str:
    """User."""
    name: str = expect(engine.run(target, "-un", entry="id"), 0).stdout.strip()
    if name != "edge-ad":
        raise CheckFailedError(f"expected the user edge-ad, got {name}")
    return name


def scores(engine: Engine, target: Target) -> str:
    """Golden pictures through `predict`."""
    device = ["--device", "cpu", "--json"]
    pictures = ["/golden/good.png", "/golden/scratch.png"]
    done = expect(engine.run(target, "predict", f"/golden/{MODEL}", *pictures, *device), 0)
    if "rror" in done.stderr:
        raise CheckFailedError(f"expected no error on stderr, got {done.stderr}")
    golden = json.loads((GOLDEN / "scores.json").read_text())["padim"]
    pairs = zip(json.loads(done.stdout), (golden["good"], golden["scratch"]), strict=True)
    worst = max(abs(got["score"] / expected["onnx"] - 1) for got, expected in pairs)
    if worst > TOLERANCE:
        raise CheckFailedError(f"a score is off by {worst:.1e}")
    return f"within {worst:.0e}"


def health(engine: Engine, target: Target) -> str:
    """Health check."""
    image = json.loads(engine.buildah("inspect", "--type=image", target.name))
    kind, *command = image["Docker"]["config"]["Healthcheck"]["Test"]
    if kind != "CMD":
        raise CheckFailedError(f"expected a command, got {kind}")
    shell, *arguments = command
    if target.dockerfile == "Dockerfile":
        expect(engine.run(target, *arguments, entry=shell), 0)
        return "exit code 0"
    # There is no GPU here, and a device that lost its GPU must not call itself healthy.
    done = expect(engine.run(target, *arguments, entry=shell), 1)
    on_cpu = [argument.replace("--device cuda", "--device cpu") for argument in arguments]
    expect(engine.run(target, *on_cpu, entry=shell), 0)
    return f"exit code 1 without a GPU (`{last(done.stderr)}`), 0 with `--device cpu`"


def stream(engine: Engine, target: Target) -> str:
    """Stream over a folder."""
    source = ["stream", "--camera", "/golden/clients/frames", "--device", "cpu"]
    done = expect(engine.run(target, *source), 0)
    verdicts = [line for line in map(json.loads, done.stdout.splitlines()) if "score" in line]
    pictures = len(list((GOLDEN / "clients/frames").iterdir()))
    if len(verdicts) != pictures:
        raise CheckFailedError(f"expected {pictures} verdicts, got {len(verdicts)}")
    return f"{pictures} verdicts, exit code 0"


def state(engine: Engine, target: Target) -> str:
    """Verdicts into a folder of the host's user, as `deploy/compose.yaml` mounts it."""
    folder = engine.folder / f"state-{target.dockerfile}-{target.architecture}"
    folder.mkdir(exist_ok=True)
    os.chown(folder, 1000, 1000)
    source = ["stream", "--camera", "/golden/clients/frames", "--device", "cpu"]
    command = [*source, "--json-file", "verdicts.jsonl"]
    mounted = [f"--volume={folder}:/state", "--workdir=/state"]
    expect(engine.run(target, *command, options=[*mounted, "--user=1000:1000"]), 0)
    lines = len((folder / "verdicts.jsonl").read_text().splitlines())
    refused = expect(engine.run(target, *command, options=mounted), 1)
    return f"{lines} lines with `--user 1000:1000`; without: `{last(refused.stderr)}`"


def termination(engine: Engine, target: Target) -> str:
    """SIGTERM while it waits for pictures."""
    source = ["stream", "--camera", "/golden/clients/frames", "--watch", "--device", "cpu"]
    container = engine.podman(
        "run", "--detach", *engine.locked_down(target), target.name, *source
    ).stdout.strip()
    try:
        deadline = time.monotonic() + 300
        # The last line before it waits.
        while ": limit " not in engine.podman("logs", container).stderr:
            if time.monotonic() > deadline:
                raise CheckFailedError("expected a stream that is ready within 5 minutes")
            time.sleep(0.5)
        started = time.monotonic()
        engine.podman("stop", "--time=60", container)
        seconds = time.monotonic() - started
        state = engine.podman("inspect", "--format={{.State.ExitCode}}", container).stdout.strip()
    finally:
        engine.podman("rm", "--force", container)
    if state != "0":
        raise CheckFailedError(f"expected exit code 0, got {state}")
    return f"exit code 0 within {seconds:.0f} s"


def missing_camera(engine: Engine, target: Target) -> str:
    """Missing camera."""
    done = expect(engine.run(target, "stream", "--camera", "/dev/video0", "--device", "cpu"), 1)
    return f"exit code 1: `{last(done.stderr)}`"


CHECKS: tuple[Callable[[Engine, Target], str], ...] = (
    size,
    user,
    scores,
    health,
    stream,
    state,
    termination,
    missing_camera,
)


def expect(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    """Return what a program did if it ended as it should, and without a traceback."""
    if done.returncode != code or "Traceback" in done.stderr:
        raise CheckFailedError(
            f"expected exit code {code}, got {done.returncode}: {done.stderr[-500:]}"
        )
    return done


def last(text: str) -> str:
    """Return the last line of a text, without the marks of code, which stand around it."""
    return text.strip().splitlines()[-1].replace("`", "") if text.strip() else ""


def call(
    command: list[str], *, check: bool = True, seconds: int = 600
) -> subprocess.CompletedProcess[str]:
    """Run a program; what it printed is shown where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if check and done.returncode != 0:
        raise SystemExit(
            f"{' '.join(command)}: exit code {done.returncode}:\n"
            f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done
