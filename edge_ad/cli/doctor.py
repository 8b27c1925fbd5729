"""`edge-ad doctor`: what keeps this device from scoring, and how to repair it."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import device_option, threads_option
from edge_ad_runtime.errors import counted

if TYPE_CHECKING:
    from edge_ad_runtime.doctor import Finding

_MARKS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


@click.command()
@click.option(
    "--model",
    type=click.Path(path_type=Path, readable=False),
    help="A model file to load and to time.",
)
@click.option(
    "--camera",
    "cameras",
    multiple=True,
    metavar="SRC",
    help="A camera to open. Repeat the option for more cameras.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@device_option
@threads_option
def doctor(
    model: Path | None, cameras: tuple[str, ...], as_json: bool, device: str, threads: int | None
) -> None:
    """Find what keeps this device from scoring.

    Packages, accelerators, cameras, a model file, disk, clock and heat are looked at. Each finding
    is ok, a warning or an error, with what to do. Exit code: 1 when there is an error. Nothing is
    changed. Without --camera no camera is opened.
    """
    found = []
    for finding in _findings(model, cameras, device, threads):
        found.append(finding)
        if not as_json:
            click.echo(f"{_MARKS[finding.status]:<8} {finding.check:<14} {finding.message}")
            if finding.advice:
                click.echo(f"{'':<23} -> {finding.advice}")
    counts = {status: sum(item.status == status for item in found) for status in _MARKS}
    if as_json:
        findings = [finding.fields() for finding in found]
        click.echo(json.dumps({"ok": not counts["error"], "findings": findings}))
    else:
        errors, warnings = counts["error"], counts["warning"]
        click.echo(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {counts['ok']} ok")
    if counts["error"]:
        raise SystemExit(1)


def _findings(
    model: Path | None, cameras: tuple[str, ...], device: str, threads: int | None
) -> "Iterator[Finding]":
    from edge_ad_runtime.doctor.packages import check_packages
    from edge_ad_runtime.doctor.system import check_system

    yield from check_system(Path())
    broken = False
    for finding in check_packages():
        broken = broken or (finding.status == "error" and finding.check != "cuda")
        yield finding
    if broken:
        return  # neither a camera nor a model file can be tried with broken packages
    from edge_ad_runtime.doctor.inputs import check_camera, check_devices, check_model

    yield from check_devices()
    yield from chain.from_iterable(check_camera(camera) for camera in cameras)
    if model is not None:
        yield from check_model(model, device, threads)
