"""JSON out of a model file: every entry is checked by type and range when it is read."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

MAX_NUMBER = 3.4e38
"""Scores and map values are float32; a limit beyond that could never be reached."""

MAX_TEXT = 1000
"""Characters of a text."""

MAX_DEPTH = 4
"""Lists and objects inside one another."""


class Document:
    """A JSON object whose entries are asked for by name.

    Every method raises ValueError where an entry is missing or is something else than expected.
    """

    def __init__(self, entries: dict[str, Any]) -> None:
        """Take over entries that `parse` or the `json` module read."""
        self._entries = entries

    @classmethod
    def parse(cls, text: str) -> "Document":
        """Read JSON as its standard has it: without NaN, and with texts that can be printed."""
        entries = json.loads(text, parse_constant=_refuse)
        if not isinstance(entries, dict):
            raise ValueError(f"expected a JSON object, got {_shown(entries)}")
        if _depth(entries) > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} lists and objects inside one another")
        # 1e999 is read as an infinity and "\\ud800" as half a character: neither can be written.
        json.dumps(entries, ensure_ascii=False, allow_nan=False).encode()
        return cls(entries)

    def text(self, name: str, default: str | None = None) -> str:
        """Return one line of printable text; None as default: it must be there."""
        value = self._get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise self._wrong(name, "a line of text")
        return value

    def option(self, name: str) -> str | None:
        """Return a text, or None where it is null or missing."""
        return None if self._entries.get(name) is None else self.text(name)

    def number(self, name: str, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float:
        """Return a finite number within a range."""
        value = self._get(name)
        if not _is_number(value) or not low <= value <= high:
            within = "a finite number" if high == MAX_NUMBER else f"a number from {low} to {high}"
            raise self._wrong(name, within)
        return float(value)

    def share(self, name: str) -> float | None:
        """Return a number from 0 to 1, or None where it is null or missing."""
        return None if self._entries.get(name) is None else self.number(name, 0, 1)

    def whole(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int:
        """Return a whole number within a range."""
        value = self._get(name)
        if not (_is_whole(value) and low <= value <= high):
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return int(value)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of a few texts."""
        value = self._get(name)
        if not isinstance(value, str) or value not in choices:
            raise self._wrong(name, f"one of {', '.join(choices)}")
        return value

    def ascending(self, name: str, count: int) -> tuple[float, ...]:
        """Return `count` finite numbers, the smallest first."""
        values = self._get(name)
        if (
            not isinstance(values, list)
            or len(values) != count
            or not all(_is_number(value) and abs(value) <= MAX_NUMBER for value in values)
            or any(low > high for low, high in pairwise(values))
        ):
            raise self._wrong(name, f"{count} numbers in ascending order")
        return tuple(map(float, values))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self._get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "a list of texts")
        return tuple(values)

    def objects(self, name: str, most: int) -> "list[Document]":
        """Return a list of 1 to `most` JSON objects."""
        values = self._get(name)
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            raise self._wrong(name, f"a list of 1 to {most} objects")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, f"a list of 1 to {most} objects")
        return [Document(value) for value in values]

    def data(self, name: str) -> bytes:
        """Return what stands there in base64, with `-` and `_` in place of `+` and `/`."""
        value = self._get(name)
        try:
            return base64.b64decode(value, altchars=b"-_", validate=True)
        except (ValueError, TypeError):
            raise self._wrong(name, "base64") from None

    def interval(self, name: str) -> tuple[float, float]:
        """Return a lowest and a highest number."""
        pair = self._get(name)
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise self._wrong(name, "two numbers")
        if not -MAX_NUMBER <= pair[0] <= pair[1] <= MAX_NUMBER:
            raise self._wrong(name, "two finite numbers, the smaller one first")
        return float(pair[0]), float(pair[1])

    def size(self, name: str, most: int) -> tuple[int, int]:
        """Return a height and a width of at least 1."""
        sides = self._get(name)
        if not isinstance(sides, list) or len(sides) != 2:
            raise self._wrong(name, "a height and a width")
        if not all(_is_whole(side) and 1 <= side <= most for side in sides):
            raise self._wrong(name, f"two whole numbers from 1 to {most}")
        return sides[0], sides[1]

    def count(self, name: str, most: int) -> int | None:
        """Return a whole number of at least 1, or None where it is null or missing."""
        value = self._entries.get(name)
        if value is not None and not (_is_whole(value) and 1 <= value <= most):
            raise self._wrong(name, f"a whole number from 1 to {most}, or null")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false; a missing one is false."""
        value = self._get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def time(self, name: str) -> str:
        """Return a time in ISO 8601, as it is written."""
        text = self.text(name)
        try:
            datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise self._wrong(name, "a time as ISO 8601") from None
        return text

    def table(self, name: str) -> dict[str, Any]:
        """Return an object as a dictionary; null or a missing one is empty."""
        value = self._entries.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(map(str.isprintable, value)):
            raise self._wrong(name, "a JSON object")
        return value

    def _get(self, name: str, default: object = None) -> Any:
        """Return an entry; None as default: it must be there."""
        if name not in self._entries and default is None:
            raise ValueError(f"'{name}' is missing")
        return self._entries.get(name, default)

    def _wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(f"expected {expected} as '{name}', got {_shown(self._entries.get(name))}")


def _refuse(constant: str) -> float:
    raise ValueError(f"expected finite numbers, got {constant}")


def _depth(value: object) -> int:
    """Return how many lists and objects lie inside one another."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, inner), default=0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Return a value as JSON, cut to a length that fits into a sentence."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."
