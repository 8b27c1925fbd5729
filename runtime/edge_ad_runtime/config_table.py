"""Read tables of TOML into frozen dataclasses, and name everything that is wrong with them at once.

A field made with `setting` may stand in the table, and says what it may hold; the dataclass alone
knows types, defaults and ranges. What several fields must fulfil together, its `__post_init__`
checks.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from edge_ad_runtime.errors import ConfigError, DataError, redact

T = TypeVar("T")
Field = dataclasses.Field[Any]
Metadata = Mapping[str, Any]


class Text(NamedTuple):
    """What a text may be.

    Attributes:
        pattern: a regular expression for the whole of it.
        words: the same for people.
    """

    pattern: str
    words: str


HOST = r"[\w-]{1,63}(\.[\w-]{1,63})*"
ANY_TEXT = Text(r"[^\0]+", "a text")
ADDRESS = Text(
    rf"(?a:(?=.{{1,253}}$){HOST}|(?=.*:.*:)[0-9a-fA-F:.]+(%[\w-]+)?)", "a name or an address"
)
VARIABLE = Text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")

_LONGEST_TEXT = 4096
_LONGEST_SHOWN = 80


def setting(
    default: Any = dataclasses.MISSING,
    *,
    key: str = "",
    low: float = 0,
    high: float = 0,
    choices: tuple[str, ...] = (),
    text: Text = ANY_TEXT,
    expected: str = "",
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
        expected: what the value is, in words, where its type does not say enough.
    """
    metadata = {"key": key, "low": low, "high": high, "choices": choices, "text": text}
    metadata |= {"expected": expected, "inline": False}
    return dataclasses.field(default=default, metadata=metadata)


def inline(kind: type) -> Any:
    """Return a field for a dataclass whose keys stand in the same table as those around it."""
    return dataclasses.field(default_factory=kind, metadata={"inline": True})


def read_table(kind: type[T], table: object, errors: list[str], place: str = "") -> T | None:
    """Make a dataclass of a table.

    Args:
        kind: the dataclass.
        table: as parsed from TOML.
        errors: grows by one sentence for each mistake.
        place: stands before the keys in messages, such as `camera[1].`; empty at the top.

    Returns:
        The dataclass; None: the table has mistakes.
    """
    if not isinstance(table, Mapping):
        name = place.rstrip(".")
        written = "" if name.endswith("]") else f", [{name}]"
        errors.append(f"{name}: expected a table{written}, got {_shown(table)}")
        return None
    known = [key for key, _, _ in _settings(kind, nested=True)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            plain = key.isprintable() and len(key) < _LONGEST_SHOWN
            name = redact(key) if plain else _shown(key)
            errors.append(f"{place}{name}: there is no such setting{hint}")
    return _make(kind, table, errors, place)


def check_settings(made: object) -> None:
    """Refuse numbers and texts that a table could not hold either; for a `__post_init__`.

    Raises:
        ConfigError: one of them is out of its range.
    """
    for _, field, hint in _settings(type(made)):
        value = getattr(made, field.name)
        wrong = isinstance(value, (int, float, str)) and _mistake(value, hint, field.metadata)
        if wrong:
            raise ConfigError(f"expected {field.name} as {wrong}, got {_shown(value)}")


def _make(kind: type[T], table: Mapping[str, Any], errors: list[str], place: str) -> T | None:
    mistakes = len(errors)
    values: dict[str, Any] = {}
    for key, field, hint in _settings(kind):
        if field.metadata["inline"]:
            values[field.name] = _make(hint, table, errors, place)
        elif key in table:
            values[field.name] = _value(table[key], hint, field.metadata, errors, f"{place}{key}")
        elif field.default is dataclasses.MISSING:
            wanted = _mistake(None, hint, field.metadata)
            errors.append(f"{place}{key}: expected {wanted}, got nothing")
    if len(errors) > mistakes:
        return None
    try:
        return kind(**values)
    except DataError as error:
        errors.append(f"{place.rstrip('.') or 'the configuration'}: {error}")
        return None


def _settings(kind: type, *, nested: bool = False) -> Iterator[tuple[str, Field, Any]]:
    """Yield key, field and type of what may stand in the table of a dataclass."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(cast(Any, kind)):
        if not field.metadata:
            continue
        hint = hints[field.name]
        if NoneType in get_args(hint):
            hint = next(part for part in get_args(hint) if part is not NoneType)
        if nested and field.metadata["inline"]:
            yield from _settings(hint, nested=True)
        else:
            yield field.metadata.get("key") or field.name, field, hint


def _value(value: Any, hint: Any, metadata: Metadata, errors: list[str], place: str) -> Any:
    """Return the value as the dataclass wants it, or note what is wrong with it."""
    if dataclasses.is_dataclass(hint):
        return read_table(cast(type, hint), value, errors, f"{place}.")
    wrong = _mistake(value, hint, metadata)
    if wrong:
        errors.append(f"{place}: expected {wrong}, got {_shown(value)}")
        return None
    if get_origin(hint) is not tuple:
        return hint(value)
    item = get_args(hint)[0]
    if not dataclasses.is_dataclass(item):
        return tuple(value)
    places = (f"{place}[{index}]." for index in range(len(value)))
    return tuple(
        read_table(cast(type, item), each, errors, inner)
        for each, inner in zip(value, places, strict=True)
    )


def _mistake(value: Any, hint: Any, metadata: Metadata) -> str:
    """Return what was expected instead of the value; empty: it fits."""
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        fits, words = isinstance(value, list), "an array of tables, [[...]]"
        if not dataclasses.is_dataclass(item):
            fits = fits and not any(_mistake(each, item, metadata) for each in value)
            words = "an array of texts"
    elif hint is bool:
        fits, words = isinstance(value, bool), "true or false"
    elif hint in (int, float):
        low, high = metadata["low"], metadata["high"]
        words = "a whole number" if hint is int else "a number"
        # In Python true is a number.
        fits = isinstance(value, int if hint is int else (int, float)) and not isinstance(
            value, bool
        )
        if fits:
            words = f"{words.replace('a number', 'a finite number')} from {low} to {high}"
            fits = low <= value <= high
    elif metadata["choices"]:
        fits, words = value in metadata["choices"], f"one of {', '.join(metadata['choices'])}"
    else:
        words = "a path" if hint is Path else metadata["text"].words
        fits = isinstance(value, str) and len(value) <= _LONGEST_TEXT
        fits = fits and re.fullmatch(metadata["text"].pattern, value) is not None
    return "" if fits else metadata["expected"] or words


def _shown(value: object) -> str:
    """Return a value for a message: short, and without the passwords of URLs."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(redact(value) if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
