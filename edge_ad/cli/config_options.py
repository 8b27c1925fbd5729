"""Command-line options that derive from the fields of a detector's configuration."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edge_ad.config import PRESETS, DetectorConfig, option_of
from edge_ad.option import Option

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(
    config: type[DetectorConfig], name: str, *, default: object = None, show_default: bool = False
) -> Callable[[Command], Command]:
    """Return the command-line option of one field."""
    option = option_of(config, name)
    return click.option(
        option.flag or "--" + name.replace("_", "-"),
        name,
        type=_reader(option),
        default=default,
        show_default=show_default,
        metavar=option.metavar,
        help=option.help,
    )


def config_options(config: type[DetectorConfig]) -> Callable[[Callable[..., None]], Any]:
    """Add all options of a detector to a command, which gets them as one argument `config`."""

    def decorate(command: Callable[..., None]) -> Any:
        names = [item.name for item in fields(config)]

        @functools.wraps(command)
        def collected(center_crop: tuple[int, int] | None, **values: Any) -> None:
            chosen = {name: values.pop(name) for name in names}
            command(config=config(**_with_crop(chosen, center_crop)), **values)

        wrapped = _preset_option(config)(_center_crop_option(collected))
        for item in reversed(fields(config)):
            default = item.default
            wrapped = config_option(
                config, item.name, default=default, show_default=default is not None
            )(wrapped)
        return wrapped

    return decorate


def _reader(option: Option) -> Callable[[object], object]:
    """Return what reads the text of an option; defaults and a preset's values pass as they are."""

    def read(value: object) -> object:
        if option.accepts(value):
            return value
        try:
            parsed = option.parse(str(value))
        except ValueError:
            parsed = None
        if not option.accepts(parsed):
            raise click.BadParameter(f"expected {option.expected}, got {value!r}")
        return parsed

    return read


def _preset_option(config: type[DetectorConfig]) -> Callable[[Command], Command]:
    def apply(ctx: click.Context, param: click.Parameter, preset: str) -> None:
        """Let the preset's values stand in for the defaults; what is given explicitly wins."""
        del param
        ctx.default_map = dict(config.preset(preset))

    return click.option(
        "--preset",
        type=click.Choice(PRESETS),
        default="default",
        show_default=True,
        is_eager=True,
        expose_value=False,
        callback=apply,
        help="fast (the default): EfficientNet-Lite0 at about 256x256. accurate: "
        "EfficientNet-Lite2 at about 384x384, for small defects. paper: Wide-ResNet-50 and the "
        "settings of the method's paper.",
    )


_center_crop_option = click.option(
    "--center-crop",
    type=_reader(option_of(DetectorConfig, "input_size")),
    metavar="HxW",
    help="Look at the centre of the frame only, as the papers do; with --resize.",
)


def _with_crop(values: dict[str, Any], center_crop: tuple[int, int] | None) -> dict[str, Any]:
    """Turn `--resize` and `--center-crop` into the fields `resize` and `input_size`.

    Raises:
        click.UsageError: one without the other, or a crop together with an input size.
    """
    ctx = click.get_current_context()
    given = {
        name
        for name in ("resize", "input_size", "center_crop")
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if {"input_size", "center_crop"} <= given:
        raise click.UsageError("--input-size and --center-crop exclude each other")
    if center_crop is not None:
        values["input_size"] = center_crop
    elif "input_size" in given and "resize" not in given:
        values["resize"] = None  # a preset's crop gives way to the size that was asked for
    cropped = center_crop is not None or (
        "input_size" not in given and values["input_size"] is not None
    )
    if cropped != (values["resize"] is not None):
        raise click.UsageError("--resize and --center-crop go together, give both or neither")
    return values
