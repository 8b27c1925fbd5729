"""Builds the container images and runs them as a device would: `make image`.

    python -m benchmarks.image dist/edge_ad-*.whl

Without a daemon: buildah builds, podman and runc run. Each image starts with a read-only root,
without capabilities, without a network, and as its own user; it scores pictures, passes its health
check, streams a folder, ends at SIGTERM, and says that a camera is missing. Needs root and
Debian's packages buildah, podman, conmon, runc, debootstrap and, for arm64, qemu-user-static.

Debian's slim image is pulled where a registry can be reached; otherwise debootstrap makes a bare
Debian, and the output says so.
"""

import argparse
import os
import shutil
import ssl
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.image_checks import CHECKS, HERE, CheckFailedError, Engine, Target, call

ROOT = Path(__file__).parents[1]
SUITE = "bookworm"
TOOLS = ("buildah", "podman", "conmon", "runc", "debootstrap")
# Of the plain image. For the Jetson image, NVIDIA's would mean nothing without a Jetson; Debian's
# shows that the file builds and starts.
BASE = "debian:bookworm-slim"

EMULATION = (
    "apt-get install qemu-user-static, as root, and systemctl restart systemd-binfmt; without "
    "systemd, mount -t binfmt_misc none /proc/sys/fs/binfmt_misc and "
    "cat /usr/lib/binfmt.d/qemu-aarch64.conf > /proc/sys/fs/binfmt_misc/register"
)

TARGETS = (
    Target("Dockerfile", "amd64"),
    Target("Dockerfile.jetson", "amd64"),
    Target("Dockerfile.jetson", "arm64"),
    Target("Dockerfile", "arm64"),
)


def main() -> None:
    """Build the images, run them, and print a Markdown table each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--work", type=Path, help="folder to keep and use again")
    labels = [target.label for target in TARGETS]
    parser.add_argument("--only", action="append", choices=labels, help="(default: all)")
    parser.add_argument("--mirror", help="of Debian's packages (default: debootstrap's own)")
    arguments = parser.parse_args()
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        reason = f"{', '.join(missing)} missing" if missing else "chroot needs root"
        print(f"skipped: {reason}: apt-get install {' '.join(TOOLS)}, as root")
        return
    failed = False
    with tempfile.TemporaryDirectory(prefix="edge-ad-image-") as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        engine = Engine(folder)
        context = make_context(folder, arguments.wheel, engine)
        for target in TARGETS:
            if target.label not in (arguments.only or labels):
                continue
            if not can_run(target.architecture):
                print(
                    f"\n## {target.dockerfile}, {target.architecture}\n\nskipped: this machine "
                    f"runs no programs of that processor. {EMULATION}"
                )
                continue
            failed |= not show(engine, target, folder, context, arguments.mirror)
    if failed:
        sys.exit(1)


def make_context(folder: Path, wheel: Path, engine: Engine) -> Path:
    """Lay out a checkout with what one usually holds, and check what a build would be given."""
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    for clutter in (
        ".venv/lib/torch.so",
        "datasets/bottle/0.png",
        "results/model.onnx",
        ".git/HEAD",
    ):
        (context / clutter).parent.mkdir(parents=True)
        (context / clutter).write_text("not for the image")
    (context / "dist").mkdir()
    shutil.copy(wheel, context / "dist")
    for name in (".dockerignore", "Dockerfile", "Dockerfile.jetson"):
        shutil.copy(ROOT / name, context)
    listing = folder / "Containerfile"
    listing.write_text("FROM scratch\nCOPY . /\n")
    engine.buildah("bud", "--quiet", "--tag=context", f"--file={listing}", os.fspath(context))
    container = engine.buildah("from", "context")
    root = Path(engine.buildah("mount", container))
    given = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    engine.buildah("rm", container)
    if given != [f"dist/{wheel.name}"]:
        raise SystemExit(f"expected the wheel alone in the build context, got {given}")
    print(f"Build context: {given[0]}, {wheel.stat().st_size / 1e3:.0f} KB, nothing else.")
    return context


def can_run(architecture: str) -> bool:
    """Whether programs of this processor run here, if need be under QEMU."""
    return architecture == HERE or Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()


def show(engine: Engine, target: Target, folder: Path, context: Path, mirror: str | None) -> bool:
    """Build one image, run every check and print their table; return whether all passed."""
    print(f"\n## {target.dockerfile}, {target.architecture}\n")
    base, words = find_base(engine, target, folder, mirror)
    started = time.perf_counter()
    build(engine, target, folder, context, base)
    minutes = (time.perf_counter() - started) / 60
    print(f"Base: {words}. Built in {minutes:.1f} minutes.\n\n| check | result |\n|---|---|")
    passed = True
    for check in CHECKS:
        try:
            result = check(engine, target)
        except CheckFailedError as error:
            result, passed = f"FAILED: {error}", False
        print(f"| {(check.__doc__ or '').rstrip('.')} | {result} |")
    return passed


def find_base(engine: Engine, target: Target, folder: Path, mirror: str | None) -> tuple[str, str]:
    """Return the image to build on, and what it is, in words."""
    pull = ["buildah", *engine.options, "pull", "--quiet", f"--arch={target.architecture}"]
    if call([*pull, BASE], check=False).returncode == 0:
        return BASE, BASE
    image = f"localhost/debian:{target.architecture}"
    words = f"a bare Debian 12 made by debootstrap, since {BASE} cannot be pulled here"
    if engine.podman("image", "exists", image, check=False).returncode == 0:
        return image, words
    root = folder / f"root-{target.architecture}"
    command = ["debootstrap", f"--arch={target.architecture}", "--variant=minbase"]
    call([*command, SUITE, os.fspath(root), *([mirror] if mirror else [])], seconds=3600)
    # As slim images have it: no manuals, no translations, no lists of packages.
    for left_out in ("cache/apt", "lib/apt/lists"):
        shutil.rmtree(root / "var" / left_out)
        (root / "var" / left_out).mkdir()
    for left_out in ("doc", "man", "locale"):
        shutil.rmtree(root / "usr/share" / left_out)
    container = engine.buildah("from", f"--arch={target.architecture}", "scratch")
    engine.buildah("add", "--quiet", container, os.fspath(root), "/")
    engine.buildah("config", f"--arch={target.architecture}", container)
    engine.buildah("commit", "--quiet", "--rm", container, image)
    shutil.rmtree(root)
    return image, words


def build(engine: Engine, target: Target, folder: Path, context: Path, base: str) -> None:
    """Build one image."""
    options = ["--isolation=chroot", "--format=docker", "--pull-never", f"--tag={target.name}"]
    options.append(f"--build-arg=BASE_IMAGE={base}")
    # How this machine reaches its package index; the image gets none of it.
    settings = folder / "pip.conf"
    settings.write_text("[global]\ncert = /run/certificates.crt\n")
    certificates = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    options += [
        f"--volume={certificates}:/run/certificates.crt:ro",
        f"--volume={settings}:/etc/pip.conf:ro",
    ]
    if target.dockerfile == "Dockerfile.jetson":
        index = folder / f"index-{target.architecture}"
        options += [
            f"--volume={index}:/index:ro",
            "--build-arg=ORT_INDEX_URL=file:///index/simple",
            f"--build-arg=ORT_VERSION={gpu_runtime(index, target.architecture)}",
        ]
    file = f"--file={context / target.dockerfile}"
    architecture = f"--arch={target.architecture}"
    arguments = ["bud", *options, architecture, file, os.fspath(context)]
    engine.buildah(*arguments, cpuinfo=engine.cpuinfo(target))


def gpu_runtime(index: Path, architecture: str) -> str:
    """Download ONNX Runtime for GPUs into an index of its own, and return its version.

    It stands in for the wheel that NVIDIA's index has for a JetPack: it installs, and it has CUDA
    compiled in, but no kernels for a Jetson.
    """
    folder = index / "simple/onnxruntime-gpu"
    if not folder.exists():
        machine = {"amd64": "x86_64", "arm64": "aarch64"}[architecture]
        tags = [f"--platform=manylinux_2_{glibc}_{machine}" for glibc in (34, 28, 27, 17)]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
        ]
        call([*pip, "--python-version=3.11", *tags, f"--dest={folder}", "onnxruntime-gpu"])
    (wheel,) = folder.glob("*.whl")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return wheel.name.split("-")[1]


if __name__ == "__main__":
    main()
