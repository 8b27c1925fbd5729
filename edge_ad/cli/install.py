"""`edge-ad install`: a new model file on the device, taken over only if it proves itself."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import FiniteRange, device_option, require, threads_option
from edge_ad_runtime.errors import ConfigError, EdgeAdError

if TYPE_CHECKING:
    from edge_ad_runtime.install.install import Place
    from edge_ad_runtime.stream.config import StreamConfig

# By name: what defines them imports OpenCV and ONNX Runtime.
_FAILURES = {
    "RefusedError": ("model refused", 3),
    "RolledBackError": ("model rolled back", 4),
    "BusyError": (None, 5),
}
"""Event and exit code of what may go wrong; everything else is None and 1."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path, readable=False), required=False)
@click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file of the stream that uses it."
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="The path of the model file that the streams use, or a folder, in which it is model.onnx.",
)
@click.option(
    "--camera",
    help="With --config: the camera whose model is replaced. Needed if there are several.",
)
@click.option("--rollback", is_flag=True, help="Return to the previous model; takes no MODEL.")
@click.option(
    "--require-signature",
    "key",
    type=click.Path(path_type=Path),
    help="With --to: refuse a file without a valid signature for this public key (PEM).",
)
@click.option(
    "--signature-state",
    type=click.Path(path_type=Path),
    default=Path("edge-ad-accepted.json"),
    show_default=True,
    help="With --require-signature: keeps the highest signed version that was accepted.",
)
@click.option(
    "--max-latency",
    "max_latency_ms",
    type=FiniteRange(min=0, min_open=True, max=1e9),
    default=2000.0,
    show_default=True,
    metavar="MS",
    help="The longest that one inference may take, in ms.",
)
@click.option(
    "--shadow",
    type=click.IntRange(min=0, max=1_000_000),
    default=0,
    metavar="N",
    help="First score N parts of the running stream with both models. Only the old model's "
    "verdicts count.",
)
@click.option(
    "--max-changed",
    "most_changed",
    type=FiniteRange(min=0, max=1),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="With --shadow: the share of these parts whose verdict may change.",
)
@click.option(
    "--timeout",
    type=FiniteRange(min=1, max=1e6),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds for the check, and again for the trial with --shadow.",
)
@click.option("--other-category", is_flag=True, help="The new model is for another product.")
@device_option
@threads_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the outcome, also a failure, as one line of JSON.",
)
def install(
    model: Path | None,
    config: Path | None,
    to: Path | None,
    camera: str | None,
    rollback: bool,
    key: Path | None,
    signature_state: Path,
    max_latency_ms: float,
    shadow: int,
    most_changed: float,
    timeout: float,
    other_category: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Replace a device's model file with MODEL, once that is checked.

    A process of its own checks the checksum, the signature, the format, the golden frames in the
    file, and the time of one inference. The old file is kept in the other of two slots, for
    --rollback. Exit code: 0 installed, 1 the device or its configuration is wrong, 2 wrong usage, 3
    refused, 4 the trial or the take-over failed and the old model goes on, 5 try again later.
    Whatever happens, even if the command is killed, the stream has a complete, checked model.
    """
    if (config is None) == (to is None):
        raise click.UsageError("give either --config or --to")
    if (model is None) != rollback:
        raise click.UsageError("give either MODEL or --rollback")
    try:
        require(("cv2", "onnxruntime"), extra="device", purpose="installing a model")
        from edge_ad_runtime.install.install import Terms, roll_back
        from edge_ad_runtime.install.install import install as install_model

        if config is not None:
            place = _configured(config, camera, device, threads)
        else:
            place = _given(Path(str(to)), key, signature_state, device, threads)
        terms = Terms(
            max_latency_ms=max_latency_ms,
            timeout=timeout,
            shadow=shadow,
            most_changed=most_changed,
            other_category=other_category,
        )
        outcome = roll_back(place, terms) if model is None else install_model(model, place, terms)
    except EdgeAdError as error:
        event, code = _FAILURES.get(type(error).__name__, (None, 1))
        if as_json:
            click.echo(json.dumps({"event": event, "message": str(error)}))
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(code) from error
    click.echo(json.dumps(outcome.fields()) if as_json else outcome.message)


def _configured(config: Path, camera: str | None, device: str, threads: int | None) -> "Place":
    """Return the place that the configuration of a stream names.

    Raises:
        ConfigError: the configuration cannot be used, or it is not clear which model is meant.
    """
    from edge_ad_runtime.install.install import Place
    from edge_ad_runtime.model.accepted import AcceptedVersions
    from edge_ad_runtime.stream.config import read_config

    parsed = read_config(config)
    signature = parsed.signature
    return Place(
        path=_path(parsed, camera),
        device=parsed.device if device == "auto" else device,
        threads=threads or parsed.threads,
        accelerator=parsed.accelerator,
        key=None if signature is None else _read_key(signature.key),
        least_version=0 if signature is None else signature.least_version,
        accepted=None if signature is None else AcceptedVersions(signature.state_file),
        socket=None if parsed.install is None else parsed.install.socket,
    )


def _path(config: "StreamConfig", camera: str | None) -> Path:
    models = {item.name: item.model for item in config.cameras}
    if camera is not None:
        if camera not in models:
            raise ConfigError(f"there is no camera {camera!r}: expected one of {', '.join(models)}")
        return models[camera]
    paths = set(models.values())
    if len(paths) > 1:
        raise ConfigError(
            f"the cameras use {len(paths)} model files: say with --camera which one is replaced, "
            f"{' or '.join(models)}"
        )
    return paths.pop()


def _given(
    to: Path, key: Path | None, signature_state: Path, device: str, threads: int | None
) -> "Place":
    from edge_ad_runtime.install.install import Place
    from edge_ad_runtime.model.accepted import AcceptedVersions

    return Place(
        path=to / "model.onnx" if to.is_dir() else to,
        device=device,
        threads=threads,
        key=None if key is None else _read_key(key),
        accepted=None if key is None else AcceptedVersions(signature_state),
    )


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the public key {path} ({error.strerror}): check its path"
        ) from error
