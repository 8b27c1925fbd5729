"""The options that all training commands share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from edge_ad.cli.options import SizeType
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
    skip_bad: bool
    as_json: bool


class DimsType(click.ParamType):
    """A number of channels, or `all`."""

    name = "N|all"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Parse the text.

        Raises:
            click.BadParameter: neither a whole number nor `all`.
        """
        text = str(value)
        if text != "all" and not text.isdigit():
            self.fail(f"expected a number of channels or 'all', got {text!r}", param, ctx)
        return text if text == "all" else int(text)


class LayersType(click.ParamType):
    """Names with commas between them, as a tuple."""

    name = "NAME,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split the text."""
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


_OPTIONS = (
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
    click.option("--layers", type=LayersType(), help="Feature maps of the backbone, by name."),
    click.option(
        "--input-size",
        type=SizeType(),
        help="What the backbone sees. Default: the pictures' shape, about 256x256 in area.",
    ),
    click.option("--resize", type=int, help="Shorter side before --center-crop."),
    click.option("--center-crop", type=SizeType(), help="Look at the centre only, as the papers."),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
    ),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option(
        "--sigma", type=float, default=4.0, show_default=True, help="Blur of the map in pixels."
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
