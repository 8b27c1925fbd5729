"""What an option of a detector accepts: the kinds of values, each with its words and its range."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field accepts, and how it is offered to people.

    Attributes:
        expected: what is accepted, in words that complete "expected ... as NAME".
        accepts: whether a value is accepted.
        parse: text of the command line to a value; raises ValueError.
        metavar: placeholder in `--help`.
        help: what the option means, one sentence or two.
        flag: name on the command line where it differs from the field's.
        saved: whether `detector.json` keeps it, because it is needed to rebuild the detector.
    """

    expected: str
    accepts: Callable[[object], bool]
    parse: Callable[[str], object]
    metavar: str
    help: str = ""
    flag: str | None = None
    saved: bool = True


def text(what: str, metavar: str) -> Option:
    """Accept any text but an empty one."""
    return Option(
        expected=what,
        accepts=lambda value: isinstance(value, str) and value != "" and "\0" not in value,
        parse=str,
        metavar=metavar,
    )


def whole(minimum: int, maximum: int = 2**63 - 1, unit: str = "") -> Option:
    """Accept whole numbers in a range, both ends included."""
    limits = f"of {minimum} or more" if maximum == 2**63 - 1 else f"from {minimum} to {maximum}"
    return Option(
        expected=f"a whole number {limits}{unit}",
        accepts=lambda value: _is_whole(value) and minimum <= value <= maximum,
        parse=int,
        metavar="N",
    )


def choice(values: Sequence[str | int]) -> Option:
    """Accept one of a few values."""
    return Option(
        expected="one of " + ", ".join(map(str, values)),
        accepts=lambda value: not isinstance(value, bool | float) and value in values,
        parse=type(values[0]),
        metavar="|".join(map(str, values)),
    )


def number(expected: str, accepts: Callable[[float], bool]) -> Option:
    """Accept finite numbers that pass a check; `expected` says which."""
    return Option(
        expected=expected,
        accepts=lambda value: (
            # Beyond 2^63, a whole number may be too large for a float.
            ((_is_whole(value) and abs(value) < 2**63) or isinstance(value, float))
            and math.isfinite(value)
            and accepts(value)
        ),
        parse=float,
        metavar="X",
    )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_is_whole(side) and 32 <= side <= 8192 and side % 32 == 0 for side in value)
    )


def _parse_size(text: str) -> tuple[int, int]:
    """Read `HxW`, or one number for a square, as (height, width)."""
    parts = text.lower().split("x")
    if len(parts) > 2:
        raise ValueError(text)
    return int(parts[0]), int(parts[-1])


def _are_names(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(isinstance(name, str) and name for name in value)
    )


def parse_names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_coreset(value: object) -> bool:
    if isinstance(value, float):
        return 0 < value <= 1
    return _is_whole(value) and value >= 1


SIZE = Option(
    expected="a height and a width that are multiples of 32, from 32 to 8192 pixels",
    accepts=_is_size,
    parse=_parse_size,
    metavar="HxW",
)
NAMES = Option(
    expected="one or more names", accepts=_are_names, parse=parse_names, metavar="NAME,..."
)
DIMS = Option(
    expected="a number of channels, 1 or more, or 'all'",
    accepts=lambda value: value == "all" or (_is_whole(value) and value >= 1),
    parse=lambda text: text if text == "all" else int(text),
    metavar="N|all",
)
CORESET = Option(
    expected="a share above 0 and up to 1.0 (with a point), or a number of patches, 1 or more",
    accepts=_is_coreset,
    parse=lambda text: int(text) if text.isdigit() else float(text),
    metavar="SHARE|N",
)
PATCH_SIZE = Option(
    expected="an odd number from 1 to 31, such as 1, 3 or 5",
    accepts=lambda value: _is_whole(value) and value in range(1, 32, 2),
    parse=int,
    metavar="N",
)


def option(
    kind: Option, default: object, help: str, *, flag: str | None = None, saved: bool = True
) -> Any:
    """Declare a field of a configuration; None as the default makes None an accepted value."""
    complete = replace(kind, help=help, flag=flag, saved=saved)
    return field(default=default, metadata={"option": complete})
