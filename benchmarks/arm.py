"""The device's commands as aarch64 code under QEMU, compared with this machine: `make arm`.

    python -m benchmarks.arm dist/edge_ad-*.whl

A bare Debian for ARM is unpacked, not booted: Python and what every Debian has, no other package.
The wheel is installed with its extra `device`, as on a Raspberry Pi, once for each ONNX Runtime.
For each emulated processor, `info`, `predict` and `stream` then run on tiny model files of every
detector, in 8 bits and in float32. The check fails on a traceback, a verdict that differs from this
machine's, a score that differs by more than 2e-3 of it, or a file that ONNX Runtime's telemetry
left. It prints a Markdown table and takes about 9 minutes of processor time.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from benchmarks.arm_device import run, score
from benchmarks.processors import PROCESSORS

METHODS = ("padim", "patchcore", "spade", "fusion")
PRECISIONS = ("int8", "fp32")
RUNTIMES = ("1.20.0", "1.23.2", "newest")
"""The oldest ONNX Runtime that we support, the last for Python 3.10, and today's."""

TOLERANCE = 2e-3
"""Of a score, relative; 8-bit files were seen to differ by up to 9e-4."""

TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg-deb")
PICTURE_SIZE = (131, 197)
INPUT_SIZE = "64x96"


@click.command()
@click.argument("wheel", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--work", type=click.Path(path_type=Path), help="Folder to keep and use again.")
@click.option("--runtime", "runtimes", multiple=True, default=RUNTIMES, show_default=True)
@click.option("--processor", "processors", multiple=True, default=list(PROCESSORS))
@click.option("--mirror", help="Of Debian's packages. Default: debootstrap's own.")
def main(
    wheel: Path,
    work: Path | None,
    runtimes: tuple[str, ...],
    processors: tuple[str, ...],
    mirror: str | None,
) -> None:
    """Install WHEEL on an emulated device, run it there and compare."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        reason = f"{', '.join(missing)} missing" if missing else "debootstrap needs root"
        click.echo(f"skipped: {reason}: apt-get install qemu-user-static debootstrap, as root")
        return
    with tempfile.TemporaryDirectory(prefix="edge-ad-arm-") as temporary:
        folder = (work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        root = debian(folder / "root", mirror)
        models, pictures = write_parts(folder)
        here = score(models, pictures)
        sites = {name: install(wheel.resolve(), name, folder / f"site-{name}") for name in runtimes}
        emulator = subprocess.run([TOOLS[0], "--version"], capture_output=True, text=True).stdout
        click.echo(
            f"{emulator.splitlines()[0]}; compared with {platform.machine()}, ONNX Runtime "
            f"{here['onnxruntime']}. In each cell the largest relative difference of a "
            f"score, and the verdicts that are the same, of `predict` and `stream`.\n"
        )
        click.echo(f"| processor | ONNX Runtime | {' | '.join(here['models'])} |")
        click.echo("|---|---|" + "---|" * len(here["models"]))
        good = True
        for processor in processors:
            for runtime in runtimes:
                there = emulate(folder, root, sites[runtime], processor)
                good &= Row(processor, runtime, there, here).show()
    if not good:
        raise click.ClickException("a verdict or a score differs from this machine's by too much")


def debian(root: Path, mirror: str | None) -> Path:
    """Unpack a bare Debian 12 with Python for ARM, without running anything of it."""
    if (root / "usr/bin/python3.11").exists():
        return root
    command = ["debootstrap", "--arch=arm64", "--foreign", "--variant=minbase"]
    call(
        [*command, "--include=python3", "bookworm", os.fspath(root), *([mirror] if mirror else [])]
    )
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        call(["dpkg-deb", "-x", os.fspath(package), os.fspath(root)])
    cores = root / "sys/devices/system/cpu"
    cores.mkdir(parents=True)
    for name in ("possible", "present"):
        (cores / name).write_text("0-1\n")
    return root


def install(wheel: Path, runtime: str, site: Path) -> Path:
    """Let pip choose and unpack what `pip install WHEEL[device]` installs on an ARM device."""
    if site.exists():
        return site
    tags = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    platforms = [f"--platform={tag}_aarch64" for tag in tags]
    wanted = [] if runtime == "newest" else [f"onnxruntime=={runtime}"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    python = ["--python-version=3.11", "--implementation=cp"]
    call([*pip, *python, *platforms, f"--target={site}", f"{wheel}[device]", *wanted])
    return site


def emulate(folder: Path, root: Path, site: Path, processor: str) -> dict[str, Any]:
    """Run the commands on an emulated processor and return what they said."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(PROCESSORS[processor].cpuinfo())
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    output = folder / "said.json"
    output.unlink(missing_ok=True)
    # Nothing of this machine's environment: above all no ORT_DISABLE_TELEMETRY, which the package
    # itself has to set.
    variables = {
        "HOME": home,
        "PYTHONHOME": root / "usr",
        "PYTHONPATH": site,
        "PYTHONDONTWRITEBYTECODE": 1,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", 1),
    }
    emulator = ["qemu-aarch64-static", "-cpu", processor, "-L", os.fspath(root)]
    for name, value in variables.items():
        emulator += ["-E", f"{name}={value}"]
    python = os.fspath(root / "usr/bin/python3.11")
    # Not beside the checkout, whose packages must not be found.
    script = shutil.copy(Path(__file__).with_name("arm_device.py"), folder)
    command = [*emulator, python, os.fspath(script), os.fspath(folder), os.fspath(output)]
    environment = {"PATH": os.environ["PATH"]}
    call(command, environment=environment, folder=folder)
    left = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    if left:
        raise click.ClickException(f"expected no file in the user's home, found {left}")
    said: dict[str, Any] = json.loads(output.read_text())
    return said


def write_parts(folder: Path) -> tuple[Path, Path]:
    """Train every detector on drawn parts and export it; return models and pictures to score."""
    models, pictures, data = folder / "models", folder / "pictures", folder / "data"
    if models.exists():
        return models, pictures
    for half_done in (pictures, data, folder / "unfinished", folder / "results"):
        shutil.rmtree(half_done, ignore_errors=True)
    generator = np.random.default_rng(0)
    for number in range(24):
        write_part(data / f"board/train/good/{number:02}.png", generator)
    for number in range(4):
        # Lossless and not: a device decodes both.
        for suffix in (".png", ".jpg"):
            write_part(pictures / f"good-{number}{suffix}", generator)
            write_part(pictures / f"scratch-{number}{suffix}", generator, scratched=True)
    shutil.copytree(pictures, data / "board/test/scratch", ignore=_only("scratch"))
    shutil.copytree(pictures, data / "board/test/good", ignore=_only("good"))
    unfinished = folder / "unfinished"
    unfinished.mkdir(exist_ok=True)
    for method in METHODS:
        results = ["--results", os.fspath(folder / "results")]
        part = ["--class", "board", "--data-root", os.fspath(data), "--input-size", INPUT_SIZE]
        run("train", method, *part, *results)
        for precision in PRECISIONS:
            output = os.fspath(unfinished / f"{method}-{precision}.onnx")
            trained = os.fspath(folder / "results/board" / method)
            # A dozen pictures prove nothing about AUROC; here the devices are compared.
            run("export", trained, "--precision", precision, "--output", output, "--force")
    unfinished.rename(models)
    return models, pictures


def write_part(path: Path, generator: np.random.Generator, *, scratched: bool = False) -> None:
    """Draw a board with four holes, its grain and light a little different each time."""
    height, width = PICTURE_SIZE
    path.parent.mkdir(parents=True, exist_ok=True)
    grain = cv2.GaussianBlur(generator.normal(0, 25, (height, width, 3)), (0, 0), 1.5)
    left, right = generator.uniform(95, 135, 2).tolist()
    light = np.linspace(left, right, width)[None, :, None]
    part = np.clip(light + grain + (10, 30, 0), 0, 255).astype(np.uint8)
    for x in (40, 157):
        for y in (35, 96):
            shift = generator.integers(-1, 2, 2)
            cv2.circle(part, (x + int(shift[0]), y + int(shift[1])), 12, (40, 45, 50), -1)
    if scratched:
        start, end = generator.integers((20, 20), (width - 20, height - 20), (2, 2)).tolist()
        cv2.line(part, start, end, (235, 240, 245), 2, cv2.LINE_AA)
    cv2.imwrite(os.fspath(path), part)


def _only(prefix: str) -> Any:
    return lambda _, names: [name for name in names if not name.startswith(prefix)]


def call(
    command: list[str],
    *,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a program; what it prints is shown where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode != 0:
        end = f"{done.stdout}\n{done.stderr}"[-4000:]
        raise click.ClickException(f"{command[0]} failed, exit code {done.returncode}:\n{end}")


@dataclass(frozen=True)
class Row:
    """One processor with one ONNX Runtime, beside this machine."""

    processor: str
    runtime: str
    there: dict[str, Any]
    here: dict[str, Any]

    def show(self) -> bool:
        """Print the row; return whether every verdict is the same and every score near enough."""
        cells, good = [], True
        for model, expected in self.here["models"].items():
            got = self.there["models"][model]
            pairs = [
                pair
                for command in expected
                for pair in zip(expected[command], got[command], strict=True)
            ]
            worst = max(abs(b[0] - a[0]) / abs(a[0]) for a, b in pairs)
            same = sum(a[1] == b[1] for a, b in pairs)
            good &= same == len(pairs) and worst <= TOLERANCE
            cells.append(f"{worst:.0e}, {same}/{len(pairs)}")
        processor = PROCESSORS[self.processor].name
        click.echo(f"| {processor} | {self.there['onnxruntime']} | {' | '.join(cells)} |")
        return good


if __name__ == "__main__":
    main()
