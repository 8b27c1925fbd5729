"""What the device package weighs: installed size, import, memory, cold start to the first verdict.

    python benchmarks/footprint.py --model cable.onnx --pictures good/
    python benchmarks/footprint.py --model cable.onnx --pictures good/ --root /tmp/bare

The wheel with the extra `device` is installed into a fresh environment: of this machine, or with
`--root` into a bare Debian made by `debootstrap --variant=minbase --include=python3,python3-venv`,
where `info`, `predict` and `stream` then run in a chroot, as root, with a home of their own.
Targets: 320 MB, 0.3 s, 1 s; no system package added, no traceback, no file outside of the home.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
IMPORT = "from edge_ad_runtime import Scorer"
VERDICT = (
    "import sys; from edge_ad_runtime import Scorer, read_frame; "
    "Scorer(sys.argv[1], device='cpu').score(read_frame(sys.argv[2]))"
)
TIMED = (
    "import sys, time, resource; start = time.perf_counter(); cpu = time.process_time(); {}; "
    "print(time.perf_counter() - start, time.process_time() - cpu, "
    "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)
NOT_OURS = ("pip", "setuptools", "_distutils_hack", "distutils-precedence.pth")
"""What a fresh virtual environment holds before anything is installed."""


@dataclass
class Place:
    """Where the package is installed and run: this machine, or a root folder."""

    root: Path | None
    environment: Path
    home: Path

    def inside(self, path: Path) -> str:
        """Return a path as the commands in this place see it."""
        return str(path) if self.root is None else "/" + str(path.relative_to(self.root))

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command with a plain environment."""
        chroot = [] if self.root is None else ["chroot", str(self.root)]
        return subprocess.run(
            [*chroot, *command],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": self.inside(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python."""
        return self.run([self.inside(self.environment / "bin/python"), *arguments])


def install(place: Place, wheel: Path) -> None:
    """Make a fresh environment and install the wheel with what it needs, from a folder."""
    base = place.environment.parent
    bundle = base / "bundle"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
            *("--dest", str(bundle), f"{wheel}[device]"),
        ],
        check=True,
    )
    python = sys.executable if place.root is None else "/usr/bin/python3"
    for command in (
        [python, "-m", "venv", place.inside(place.environment)],
        [
            *(place.inside(place.environment / "bin/pip"), "install", "--quiet", "--no-index"),
            *("--no-cache-dir", "--find-links", place.inside(bundle), "edge-ad[device]"),
        ],
    ):
        done = place.run(command)
        if done.returncode:
            raise click.ClickException(done.stderr)
    shutil.rmtree(bundle)


def sizes(environment: Path) -> tuple[dict[str, float], float]:
    """Return what each package takes on disk in MB, and how much of that is byte code.

    pip compiles every module of every package, most of which a device never imports.
    """
    (packages,) = environment.glob("lib/python3*/site-packages")
    found, byte_code = {}, 0.0
    for entry in packages.iterdir():
        if entry.name.startswith(NOT_OURS) or entry.name == "__pycache__":
            continue
        files = list(entry.rglob("*")) if entry.is_dir() else [entry]
        found[entry.name] = sum(file.lstat().st_size for file in files if not file.is_dir()) / 1e6
        byte_code += sum(file.lstat().st_size for file in files if file.suffix == ".pyc") / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1])), byte_code


def files_of(root: Path) -> set[Path]:
    """Return every file below a folder, but those of the running system."""
    found = set()
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in ("proc", "sys", "dev", "tmp")]
        found |= {Path(folder, name) for name in names if "__pycache__" not in folder}
    return found


def measure(place: Place, model: Path, picture: Path, rounds: int) -> None:
    """Print medians of fresh processes, interleaved."""
    codes = {"import": IMPORT, "first verdict": VERDICT}
    seconds: dict[str, list[float]] = {name: [] for name in (*codes, "whole process")}
    cpu: dict[str, list[float]] = {name: [] for name in codes}
    memory: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            started = time.perf_counter()
            arguments = (place.inside(model), place.inside(picture))
            done = place.python("-c", TIMED.format(code), *arguments)
            elapsed = time.perf_counter() - started
            if done.returncode:
                raise click.ClickException(done.stderr)
            taken, computed, kib = done.stdout.split()
            seconds[name].append(float(taken))
            cpu[name].append(float(computed))
            memory[name].append(float(kib) / 1024)
            if name == "first verdict":
                seconds["whole process"].append(elapsed)
    for name, times in seconds.items():
        text = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
        if name in codes:
            text += f", {statistics.median(cpu[name]):.2f} s of CPU time"
            text += f", {statistics.median(memory[name]):.0f} MiB"
        print(f"{name:<16} {text}")


def commands(place: Place, model: Path, pictures: Path) -> None:
    """Run what a device runs, and say what it left behind."""
    assert place.root is not None
    packages = place.run(["dpkg-query", "-W"]).stdout
    before = files_of(place.root)
    edge_ad = place.inside(place.environment / "bin/edge-ad")
    model_path, folder = place.inside(model), place.inside(pictures)
    for command in (
        ["info", model_path],
        ["predict", model_path, folder, "--json"],
        ["stream", "--camera", folder, "--model", model_path],
    ):
        done = place.run([edge_ad, *command])
        lines = len(done.stdout.splitlines())
        clean = "no traceback" if "Traceback" not in done.stderr else done.stderr
        print(f"{command[0]:<16} exit code {done.returncode}, {lines} lines, {clean}")
    added = sorted(files_of(place.root) - before)
    unchanged = packages == place.run(["dpkg-query", "-W"]).stdout
    print(f"system packages  {'none added' if unchanged else 'CHANGED'}")
    print(f"files added      {[str(path) for path in added] or 'none'}")


@click.command()
@click.option("--wheel", type=click.Path(path_type=Path, exists=True), help="Default: built here.")
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pictures", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--root", type=click.Path(path_type=Path, exists=True), help="A bare Debian.")
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
def main(wheel: Path | None, model: Path, pictures: Path, root: Path | None, rounds: int) -> None:
    """Install into a fresh environment and measure."""
    with tempfile.TemporaryDirectory(dir=None if root is None else root / "opt") as name:
        base = Path(name)
        base.chmod(0o755)
        if wheel is None:
            build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
            subprocess.run([*build, "--wheel-dir", str(base), str(ROOT)], check=True)
            (wheel,) = base.glob("edge_ad-*.whl")
        place = Place(root, base / "environment", base / "home")
        place.home.mkdir()
        install(place, wheel)
        copied = base / model.name
        shutil.copy(model, copied)
        shutil.copytree(pictures, base / "pictures")
        picture = min(path for path in (base / "pictures").rglob("*") if path.is_file())
        version = place.python("-c", "import platform; print(platform.python_version())")
        freeze = place.python("-m", "pip", "list", "--format", "json").stdout
        names = {item["name"]: item["version"] for item in json.loads(freeze)}
        print(f"{os.uname().machine}, Python {version.stdout.strip()}, medians of {rounds}")
        print(", ".join(f"{key} {value}" for key, value in names.items() if key not in NOT_OURS))
        found, byte_code = sizes(place.environment)
        largest = ", ".join(f"{key} {value:.0f}" for key, value in list(found.items())[:6])
        print(
            f"installed        {sum(found.values()):.0f} MB ({largest}; byte code {byte_code:.0f})"
        )
        measure(place, copied, picture, rounds)
        if root is not None:
            commands(place, copied, base / "pictures")
        print(f"files in home    {[str(path) for path in place.home.rglob('*')] or 'none'}")


if __name__ == "__main__":
    main()
