"""`edge-ad info`: what a model file says about itself, and what is in it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.options import require


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def info(model: Path, as_json: bool) -> None:
    """Print the metadata of the model file MODEL, its operators and the size of its parts.

    Operators and sizes need the package onnx, which comes with the extra `train`.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="reading a model file")
    from importlib.util import find_spec

    from edge_ad_runtime import Scorer
    from edge_ad_runtime.model.info import COLOR_ORDER

    document: dict[str, Any] = {
        "model": str(model),
        "size_bytes": model.stat().st_size if model.is_file() else 0,
        **asdict(Scorer(model, device="cpu").info),
        "color_order": COLOR_ORDER,
    }
    if find_spec("onnx") is not None:
        document |= _content(model)
    click.echo(json.dumps(document) if as_json else _text(document))


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
    if isinstance(value, list | tuple):
        return " ".join(_short(item) for item in value)
    return str(value)
