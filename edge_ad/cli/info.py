"""`edge-ad info`: what a model file says about itself, and what is in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.options import require
from edge_ad_runtime.errors import ModelFileError

_LONGEST_LIST = 16


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def info(model: Path, as_json: bool) -> None:
    """Print what the model file MODEL says about itself.

    Its operators and the sizes of its parts are printed as well, which needs the package onnx,
    which comes with the extra `train`.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="reading a model file")
    from importlib.util import find_spec

    from edge_ad_runtime import Scorer

    described = Scorer(model, device="cpu").info
    document: dict[str, Any] = {
        "model": str(model),
        "size_bytes": model.stat().st_size if model.is_file() else 0,
        **described.to_json(),
    }
    if described.calibration is not None:
        document["promise"] = described.calibration.promise()
    document["limits_on_this_device"] = _limits_here(model)
    if find_spec("onnx") is not None:
        document |= _content(model)
    click.echo(json.dumps(document) if as_json else _text(document))


def _limits_here(model: Path) -> dict[str, dict[str, Any]]:
    """Return the limits that `edge-ad calibrate` wrote beside the model, by camera."""
    from edge_ad_runtime.model.device_calibration import digest_of, read_calibrations

    try:
        known = read_calibrations(model, digest_of(model))
    except ModelFileError as error:
        click.echo(f"the limit of the model file is in force: {error}", err=True)
        return {}
    return {
        name or "every other camera": {"limit": item.calibration.limit(), "rule": item.rule}
        for name, item in known.items()
    }


def _content(model: Path) -> dict[str, Any]:
    from edge_ad_export.content import read_content

    return asdict(read_content(model))


def _text(document: dict[str, Any]) -> str:
    lines = []
    for name, value in document.items():
        if isinstance(value, dict):
            lines.append(name)
            lines += [f"  {key:<22} {_short(item)}" for key, item in value.items()]
        else:
            lines.append(f"{name:<24} {_short(value)}")
    return "\n".join(lines)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple) and len(value) > _LONGEST_LIST:
        return f"{len(value)} values, {_short(value[0])} to {_short(value[-1])}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_short(item) for item in value)
    return str(value)
