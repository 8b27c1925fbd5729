"""Read tables of TOML into frozen dataclasses, and name everything that is wrong with them at once.

A field made with `setting` may stand in the table, and says what it may hold; the dataclass alone
knows types, defaults and ranges. What several fields must fulfil together, its `__post_init__`
checks.
"""

import dataclasses
import difflib
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from edge_ad_runtime.errors import ConfigError, DataError

T = TypeVar("T")


class Text(NamedTuple):
    """What a text may be.

    Attributes:
        pattern: a regular expression for the whole of it.
        words: the same for people.
    """

    pattern: str
    words: str


ANY_TEXT = Text(r"[^\0]+", "a text")
HOST = r"(?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*"
ADDRESS = Text(rf"(?a:{HOST}|[0-9a-fA-F:.]+(%[\w-]+)?)", "a name or an address")
VARIABLE = Text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")

_LONGEST_TEXT = 4096
_LONGEST_SHOWN = 80

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _LONGEST_SHOWN
_short.maxlevel = 2


def setting(
    default: Any = dataclasses.MISSING,
    *,
    key: str = "",
    low: float = 0,
    high: float = 0,
    choices: tuple[str, ...] = (),
    text: Text = ANY_TEXT,
    expected: str = "",
    secret: bool = False,
) -> Any:
    """Return a field that may stand in a table.

    Its type is that of the dataclass: `bool`, `int`, `float`, `str`, `Path`, a tuple of texts, a
    dataclass (a table), a tuple of dataclasses (an array of tables), or one of them or None.

    Args:
        default: what holds without the key; no default: the key must be there.
        key: in the table, where it is not the name of the field.
        low: of numbers, the least.
        high: of numbers, the greatest; every number needs a range.
        choices: of texts, the only ones.
        text: of texts and paths, what they may be.
        expected: what the value is, in words, where the type does not say enough.
        secret: messages do not repeat the value, which may hold a password.
    """
    metadata = {"key": key, "low": low, "high": high, "choices": choices, "text": text}
    metadata |= {"expected": expected, "secret": secret, "inline": False}
    return dataclasses.field(default=default, metadata=metadata)


def inline(kind: type) -> Any:
    """Return a field for a dataclass whose keys stand in the same table as those around it."""
    return dataclasses.field(default_factory=kind, metadata={"inline": True})


def read_table(kind: type[T], table: object, errors: list[str]) -> T | None:
    """Make a dataclass of a table; None: it has mistakes, which are added to `errors`."""
    return _read(kind, table, "", errors)


def check_settings(made: object) -> None:
    """Refuse numbers and texts that a table could not hold either; for a `__post_init__`.

    Raises:
        ConfigError: one of them is out of its range.
    """
    for _, field, hint in _settings(type(made), nested=False):
        value = getattr(made, field.name)
        if isinstance(value, (int, float, str)) and not _fits(value, hint, field.metadata):
            raise ConfigError(
                f"expected {field.name} as {_expected(field, hint)}, got {_shown(value)}"
            )


def _read(kind: type[T], table: object, place: str, errors: list[str]) -> T | None:
    """Note the mistakes of a table; None: it has some. `place` stands before its keys."""
    if not isinstance(table, Mapping):
        errors.append(f"expected a table as {place.rstrip('.')}, got {_shown(table)}")
        return None
    known = [key for key, _, _ in _settings(kind)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            name = key if key.isprintable() else repr(key)
            errors.append(f"{place}{name[:_LONGEST_SHOWN]}: there is no such setting{hint}")
    return _make(kind, table, place, errors)


def _make(kind: type[T], table: Mapping[str, Any], place: str, errors: list[str]) -> T | None:
    mistakes = len(errors)
    values: dict[str, Any] = {}
    for key, field, hint in _settings(kind, nested=False):
        if field.metadata["inline"]:
            values[field.name] = _make(hint, table, place, errors)
        elif key in table:
            values[field.name] = _value(table[key], field, hint, f"{place}{key}", errors)
        elif field.default is dataclasses.MISSING:
            errors.append(f"{place}{key}: expected {_expected(field, hint)}, got nothing")
    if len(errors) > mistakes:
        return None
    try:
        return kind(**values)
    except DataError as error:
        errors.append(f"{place.rstrip('.') or 'the configuration'}: {error}")
        return None


def _settings(
    kind: type, *, nested: bool = True
) -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Yield key, field and type of what may stand in the table of a dataclass."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(cast(Any, kind)):
        if not field.metadata:
            continue
        hint = hints[field.name]
        if NoneType in get_args(hint):
            hint = next(part for part in get_args(hint) if part is not NoneType)
        if nested and field.metadata["inline"]:
            yield from _settings(hint)
        else:
            yield field.metadata.get("key") or field.name, field, hint


def _value(
    value: Any, field: "dataclasses.Field[Any]", hint: Any, place: str, errors: list[str]
) -> Any:
    """Return the value as the dataclass wants it; note what is wrong with it."""
    if dataclasses.is_dataclass(hint):
        return _read(cast(type, hint), value, f"{place}.", errors)
    item = get_args(hint)[0] if get_origin(hint) is tuple else None
    if dataclasses.is_dataclass(item) and isinstance(value, list):
        return tuple(
            _read(cast(type, item), each, f"{place}[{index}].", errors)
            for index, each in enumerate(value)
        )
    if not _fits(value, hint, field.metadata):
        got = "what is there is not shown" if field.metadata["secret"] else f"got {_shown(value)}"
        errors.append(f"{place}: expected {_expected(field, hint, place, value)}, {got}")
        return None
    return tuple(value) if item is not None else hint(value)


def _fits(value: Any, hint: Any, metadata: Mapping[str, Any]) -> bool:
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return isinstance(value, list) and all(_fits(each, item, metadata) for each in value)
    if hint is bool or isinstance(value, bool):
        # In Python true is a number.
        return hint is bool and isinstance(value, bool)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        low, high = metadata["low"], metadata["high"]
        return isinstance(value, kinds) and low <= value <= high and math.isfinite(value)
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        return False
    if metadata["choices"]:
        return value in metadata["choices"]
    return re.fullmatch(metadata["text"].pattern, value) is not None


def _expected(
    field: "dataclasses.Field[Any]", hint: Any, place: str = "", value: object = None
) -> str:
    metadata = field.metadata
    if metadata["expected"]:
        return str(metadata["expected"])
    if get_origin(hint) is tuple:
        if dataclasses.is_dataclass(get_args(hint)[0]):
            return f"an array of tables, [[{place}]]"
        return "an array of texts"
    if hint is bool:
        return "true or false"
    if hint in (int, float):
        if isinstance(value, (str, bool)):
            return "a whole number" if hint is int else "a number"
        kind = "a whole number" if hint is int else "a finite number"
        return f"{kind} from {_number(metadata['low'])} to {_number(metadata['high'])}"
    if metadata["choices"]:
        return f"one of {', '.join(metadata['choices'])}"
    return "a path" if hint is Path else str(metadata["text"].words)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    return _short.repr(value)
