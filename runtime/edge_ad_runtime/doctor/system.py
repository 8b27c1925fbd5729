"""The machine itself: Python, operating system, board, disk, clock, heat."""

import ctypes
import errno
import os
import platform
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_ad_runtime.doctor import Finding, error, ok, warning
from edge_ad_runtime.errors import counted

ROOT = Path("/")
"""Where the kernel's files are looked for; tests put another machine here."""

_OLDEST_PYTHON = (3, 10)
_LOW_BYTES, _FULL_BYTES = 1_000_000_000, 100_000_000
_HOT_CELSIUS = 85.0

_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""

_PI_NOW = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


def check_system(folder: Path) -> Iterator[Finding]:
    """Look at the machine.

    Args:
        folder: where the stream will write.
    """
    yield _python()
    yield ok("system", _system())
    yield _board()
    yield _disk(folder)
    yield _home()
    yield from _clock()
    yield from _heat()


def _python() -> Finding:
    version = platform.python_version()
    bits = 8 * struct.calcsize("P")
    if sys.version_info < _OLDEST_PYTHON:
        return error("python", f"Python {version}", "install Python 3.10 or newer")
    if bits < 64:
        return error(
            "python",
            f"Python {version} of {bits} bits",
            "install a 64-bit system: there is no ONNX Runtime for 32 bits",
        )
    return ok("python", f"Python {version}, {sys.executable}")


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}, {platform.machine()}, {os.cpu_count()} cores"


def _board() -> Finding:
    model = _read(ROOT / "proc/device-tree/model").rstrip("\0")
    release = _read(ROOT / "etc/nv_tegra_release").splitlines()
    memory = _memory()
    if model and release:
        return ok("board", f"{model}, L4T {release[0].lstrip('# ')[:40]}, {memory}")
    return ok("board", f"{model or 'no board that names itself'}, {memory}")


def _memory() -> str:
    for line in _read(ROOT / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return f"{int(line.split()[1]) / 1e6:.1f} GB of memory"
    return "unknown memory"


def _disk(folder: Path) -> Finding:
    try:
        folder = folder.resolve()
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        return error(
            "disk",
            f"the folder '{folder}' cannot be used ({problem.strerror})",
            "change to a folder that exists, and run the command again",
        )
    text = f"{_amount(free)} free at {folder}"
    # Before its size: a root that is read-only has no space by nature.
    if not _is_writable(folder):
        return warning(
            "disk",
            f"{text}, but nothing can be written there",
            "run the stream in a folder that can be written to, or give its outputs absolute paths",
        )
    if free < _FULL_BYTES:
        return error("disk", text, "free some space: verdicts and pictures will be lost")
    if free < _LOW_BYTES:
        return warning("disk", text, "free some space, or limit kept pictures with max_mb")
    return ok("disk", text)


def _amount(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= _LOW_BYTES else f"{count / 1e6:.0f} MB"


def _home() -> Finding:
    try:
        home = Path.home()
    except RuntimeError:
        return warning("home", "there is no home folder", "set HOME to a folder of this user")
    if _is_writable(home):
        return ok("home", f"{home} can be written to")
    return warning(
        "home",
        f"the home folder {home} cannot be written to",
        "scoring does not need it, caches do: set HOME and XDG_CACHE_HOME to a folder of this user",
    )


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as problem:
        return problem.errno == errno.ENOSPC


class _Timex(ctypes.Structure):
    """The head of struct timex, and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def _clock() -> Iterator[Finding]:
    status = clock_status()
    if status is None:
        return
    if status & _UNSYNCHRONISED:
        yield warning(
            "clock",
            "the clock is not synchronised: the times of verdicts may be off",
            "sudo timedatectl set-ntp true (in a container: on its host)",
        )
    else:
        yield ok("clock", "synchronised")


def clock_status() -> int | None:
    """Return the kernel's status bits of the clock, without changing it; None: it tells none."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else timex.status


def _heat() -> Iterator[Finding]:
    pi = _read(ROOT / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    if pi:
        yield _raspberry_pi(pi)
    hottest = max(_temperatures(), default=None)
    if hottest is not None:
        yield (
            warning("heat", f"{hottest:.0f} degrees C", "cool the device: it slows down by itself")
            if hottest >= _HOT_CELSIUS
            else ok("heat", f"{hottest:.0f} degrees C at the hottest sensor")
        )
    events = sum(_numbers("sys/class/hwmon/hwmon*/oc*_event_cnt"))
    if events:
        yield warning(
            "power",
            f"the board was slowed down {counted(events, 'time')} because it drew too much current",
            "use a stronger power supply or a lower power mode (nvpmodel)",
        )


def _raspberry_pi(text: str) -> Finding:
    try:
        bits = int(text, 16)
    except ValueError:
        return ok("power", f"the firmware says {text!r}")
    now = [name for bit, name in _PI_NOW.items() if bits >> bit & 1]
    before = [name for bit, name in _PI_NOW.items() if bits >> (bit + 16) & 1]
    if now or before:
        when = f"now: {', '.join(now)}" if now else f"since the start: {', '.join(before)}"
        return warning(
            "power",
            f"the board slows down ({when})",
            "use the official power supply and a heat sink or fan",
        )
    return ok("power", "no under-voltage, no throttling since the start")


def _temperatures() -> Iterator[float]:
    return (value / 1000 for value in _numbers("sys/class/thermal/thermal_zone*/temp"))


def _numbers(pattern: str) -> Iterator[int]:
    for path in sorted(ROOT.glob(pattern)):
        text = _read(path).strip()
        if text.lstrip("-").isdigit():
            yield int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
