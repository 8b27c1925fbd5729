"""The options that all training commands share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.options import parse_size
from edge_ad.presets import PAPER, PAPER_BACKBONE, PAPER_CROP, PAPER_RESIZE, PRESETS
from edge_ad.runs import DEFAULT_RESULTS


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What was asked for, apart from the method's own options."""

    category: str
    data_root: Path
    results: Path
    backbone: str
    weights: str
    layers: tuple[str, ...] | None
    input_size: tuple[int, int] | None
    resize: int | None
    device: str
    seed: int
    sigma: float
    grid_stride: int
    skip_bad: bool
    as_json: bool


def parse_dims(text: object) -> int | str:
    """Read a number of channels, or `all`.

    Raises:
        click.BadParameter: neither.
    """
    if str(text) == "all":
        return "all"
    if not str(text).isdigit():
        raise click.BadParameter(f"expected a number of channels or 'all', got {text!r}")
    return int(str(text))


def parse_coreset(text: object) -> float | int:
    """Read a share such as 0.1 (with a point), or a whole number of rows.

    Raises:
        click.BadParameter: not a number.
    """
    try:
        return int(str(text)) if str(text).isdigit() else float(str(text))
    except ValueError as error:
        raise click.BadParameter(
            f"expected a share such as 0.1 or a number of rows, got {text!r}"
        ) from error


def parse_names(text: object) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(part.strip() for part in str(text).split(",") if part.strip())


def _apply_preset(ctx: click.Context, param: click.Parameter, preset: str) -> None:
    """Let the preset's values stand in for the defaults; what is given explicitly wins."""
    del param
    if preset == "paper":
        ctx.default_map = {
            "backbone": PAPER_BACKBONE,
            "resize": PAPER_RESIZE,
            "center_crop": PAPER_CROP,
            **PAPER[str(ctx.info_name)],
        }


_OPTIONS = (
    click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default="default",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=_apply_preset,
        help="paper: Wide-ResNet-50 and the settings of the method's paper, as defaults.",
    ),
    click.option("--class", "category", required=True, help="Folder of the product's pictures."),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path),
        default=Path("datasets"),
        show_default=True,
        help="Where the class folders lie.",
    ),
    click.option(
        "--results",
        type=click.Path(path_type=Path),
        default=DEFAULT_RESULTS,
        show_default=True,
        help="Where runs are written.",
    ),
    click.option("--backbone", default="efficientnet_lite0", show_default=True),
    click.option(
        "--weights",
        default="pretrained",
        show_default=True,
        metavar="pretrained|none|FILE",
        help="A state-dict file for machines without internet; none is for tests only.",
    ),
    click.option(
        "--layers",
        type=parse_names,
        metavar="NAME,...",
        help="Feature maps of the backbone, by name.",
    ),
    click.option(
        "--input-size",
        type=parse_size,
        metavar="HxW",
        help="What the backbone sees. Default: the pictures' shape, about 256x256 in area.",
    ),
    click.option("--resize", type=int, help="Shorter side before --center-crop."),
    click.option(
        "--center-crop",
        type=parse_size,
        metavar="HxW",
        help="Look at the centre only, as the papers.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--sigma", type=float, default=4.0, show_default=True, help="Blur of the map in pixels."
    ),
    click.option(
        "--grid-stride", type=int, default=8, show_default=True, help="Pixels between patches."
    ),
    click.option(
        "--skip-bad", is_flag=True, help="Train without unreadable pictures; counts them."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON."),
)


def shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, which gets them as one `TrainOptions`."""

    @functools.wraps(command)
    def collected(
        input_size: tuple[int, int] | None,
        center_crop: tuple[int, int] | None,
        resize: int | None,
        **values: Any,
    ) -> None:
        if (resize is None) != (center_crop is None):
            raise click.UsageError("--resize and --center-crop go together, give both or neither")
        if center_crop and input_size:
            raise click.UsageError("--input-size and --center-crop exclude each other")
        names = {item.name for item in fields(TrainOptions)}
        own = {name: value for name, value in values.items() if name not in names}
        shared = {name: value for name, value in values.items() if name in names}
        options = TrainOptions(**shared, input_size=center_crop or input_size, resize=resize)
        command(options, **own)

    wrapped: Callable[..., None] = collected
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped
