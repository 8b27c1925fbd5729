"""What the stream works with: a camera and a model file."""

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edge_ad_runtime.doctor import Finding, error, explained, ok, warning
from edge_ad_runtime.doctor.packages import placement
from edge_ad_runtime.errors import CameraError, DataError, EdgeAdError, ModelFileError, counted

if TYPE_CHECKING:
    from edge_ad_runtime.cameras import FrameSource
    from edge_ad_runtime.model.image import Appearance
    from edge_ad_runtime.model.scorer import Scorer

DEVICES = Path("/dev")
"""Where cameras are looked for; tests put another folder here."""

_FRAMES, _SECONDS = 30, 5.0
_WARM_UP, _TIMED = 3, 15
_DARK, _BRIGHT = 5.0, 250.0
_MOST_NODES = 5


def check_devices() -> Iterator[Finding]:
    """List the USB cameras, without opening them: one may be in use."""
    paths = sorted(DEVICES.glob("video*"))
    closed = [str(path) for path in paths if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        yield warning(
            "video devices",
            f"this user may not open {', '.join(closed)}",
            "sudo usermod -aG video $USER, and log in again (a container: --group-add video)",
        )
    elif paths:
        yield ok("video devices", ", ".join(map(str, paths)))
    else:
        yield ok(
            "video devices",
            "no USB camera (no /dev/video*); a container needs --device /dev/video0 to see one",
        )


def check_camera(spec: str) -> Iterator[Finding]:
    """Open a camera and read some frames."""
    from edge_ad_runtime.cameras import open_source
    from edge_ad_runtime.errors import redact

    name = redact(spec)
    try:
        source = open_source(spec)
    except (CameraError, DataError) as problem:
        yield explained("camera", problem)
        return
    yield from _frames(source, name)


@dataclass
class _Watched:
    """What a camera gave for a while.

    Attributes:
        arrivals: when each frame came, and its number.
        sizes: as width x height, each once.
        looks: of the frames.
        lost: why frames could not be used.
    """

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    sizes: dict[str, None] = field(default_factory=dict)
    looks: list["Appearance"] = field(default_factory=list)
    lost: list[DataError] = field(default_factory=list)


def _watch(source: "FrameSource") -> _Watched:
    """Read for a while, in a thread: a driver may never return.

    Raises:
        CameraError: the camera is lost.
    """
    from edge_ad_runtime.cameras.reader import Reader
    from edge_ad_runtime.model.image import appearance

    watched = _Watched()
    until = monotonic() + _SECONDS
    with Reader(source) as reader:
        while len(watched.arrivals) < _FRAMES and monotonic() < until and not reader.ended:
            try:
                captured = reader.take(until - monotonic())
            except DataError as problem:
                watched.lost.append(problem)
                continue
            if captured is not None:
                height, width = captured.frame.shape[:2]
                watched.arrivals.append((monotonic(), captured.number))
                watched.sizes[f"{width} x {height}"] = None
                watched.looks.append(appearance(captured.frame))
    return watched


def _frames(source: "FrameSource", name: str) -> Iterator[Finding]:
    """Read some frames, and say how many come, of which size, and whether they show anything."""
    try:
        watched = _watch(source)
    except CameraError as problem:
        yield explained("camera", problem)
        return
    arrivals, sizes, looks, lost = watched.arrivals, watched.sizes, watched.looks, watched.lost
    if lost:
        worst = explained("camera", lost[-1])
        yield Finding(
            check="camera",
            status="warning" if arrivals else "error",
            message=f"{len(lost)} of {counted(len(lost) + len(arrivals), 'frame')} of {name} were "
            f"lost, the last one because {worst.message}",
            advice="check the address, and cable or network" if source.live else worst.advice,
        )
    elif not arrivals:
        yield error(
            "camera",
            f"{name} opens but gives no frame within {_SECONDS:g} s",
            "check cable and power, and that no other program uses it",
        )
    if not arrivals:
        return
    rate = ""
    if source.live and len(arrivals) > 1:
        (first, start), (last, end) = arrivals[0], arrivals[-1]
        rate = f", {(end - start) / max(last - first, 1e-6):.1f} frames a second"
    size = " and ".join(sizes) if len(sizes) < 4 else f"{len(sizes)} different sizes"
    yield ok("camera", f"{name}: {size}{rate}")
    brightness = statistics.median(look.brightness for look in looks)
    if not _DARK <= brightness <= _BRIGHT:
        yield warning(
            "camera",
            f"the pictures of {name} are {'black' if brightness < _DARK else 'white'}",
            "check the light, the lens cap and the exposure",
        )
    same = all(np.array_equal(look.grey, looks[0].grey) for look in looks[1:])
    if source.live and len(looks) > 2 and same:
        yield warning(
            "camera",
            f"{len(looks)} frames of {name} are identical",
            "the camera may hang: a real sensor has noise; switch it off and on",
        )


def check_model(path: Path, device: str, threads: int | None) -> Iterator[Finding]:
    """Load a model file, look where its nodes run, and time it."""
    from edge_ad_runtime.model.scorer import Scorer

    try:
        scorer = Scorer(path, device=device, threads=threads)
    except EdgeAdError as problem:
        yield explained("model", problem)
        return
    info = scorer.info
    checksum = "checksum fits" if info.checksum else "without checksum (an early version)"
    yield ok(
        "model",
        f"{path}: {info.method} on {info.category}, exported {info.created_at}, {checksum}, "
        f"limit {info.threshold:.4g}",
    )
    yield from _beside(path)
    yield from _placement(path, scorer.provider)
    yield _golden(scorer)
    height, width = info.input_size
    frame = np.full((height, width, 3), 127, dtype=np.uint8)
    times = []
    try:
        for _ in range(_WARM_UP + _TIMED):
            started = perf_counter()
            scorer.score(frame)
            times.append(1000 * (perf_counter() - started))
    except EdgeAdError as problem:
        yield explained("speed", problem)
        return
    latency = statistics.median(times[_WARM_UP:])
    yield ok(
        "speed",
        f"{latency:.1f} ms a frame on {scorer.provider}, some {1000 / latency:.0f} frames a second",
    )


def _beside(path: Path) -> Iterator[Finding]:
    """Look at what lies beside a model: its signature, and the limits of this device."""
    from edge_ad_runtime.model.device_calibration import digest_of, read_calibrations
    from edge_ad_runtime.model.location import signature_path

    signature = signature_path(path)
    if signature.is_file():
        yield ok("signature", f"{signature} is here; `edge-ad verify` checks it against a key")
    else:
        yield ok("signature", "the model is not signed")
    try:
        known = read_calibrations(path, digest_of(path))
    except ModelFileError as problem:
        yield warning("calibration", str(problem), "edge-ad calibrate, or delete the file")
        return
    for name, item in known.items():
        yield ok(
            "calibration",
            f"{name or 'every other camera'}: limit {item.calibration.limit():.4g}, {item.rule}",
        )


def _golden(scorer: "Scorer") -> Finding:
    """Compare what this device computes with what the workstation did."""
    if scorer.golden is None:
        return ok("golden", "no golden frames in this file")
    try:
        scorer.golden.check(scorer)
    except EdgeAdError as problem:
        return explained("golden", problem)
    return ok(
        "golden", f"{counted(len(scorer.golden.frames), 'golden frame')} scored as at the export"
    )


def _placement(path: Path, provider: str) -> Iterator[Finding]:
    """Name the nodes that do not run where they should."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    cpu = "CPUExecutionProvider"
    providers = [provider] if provider == cpu else [provider, cpu]
    placed = placement(
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    )
    if not placed:
        return
    elsewhere = [f"{node} on {where}" for node, where in placed.items() if where != provider]
    if elsewhere:
        more = f" and {len(elsewhere) - _MOST_NODES} more" if len(elsewhere) > _MOST_NODES else ""
        yield warning(
            "placement",
            f"{len(elsewhere)} of {len(placed)} nodes do not run on {provider}: "
            f"{', '.join(elsewhere[:_MOST_NODES])}{more}",
            "export for this device (edge-ad export --target), or update ONNX Runtime",
        )
    else:
        yield ok("placement", f"all {len(placed)} nodes run on {provider}")
