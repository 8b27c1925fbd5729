"""Read values out of a TOML table and collect everything that is wrong with them."""

import difflib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edge_ad_runtime.errors import DataError

T = TypeVar("T")


class Table:
    """One table of a configuration: asked key by key, it notes errors instead of raising them."""

    def __init__(self, values: object, name: str, errors: list[str]) -> None:
        """Take the table.

        Args:
            values: as parsed from TOML.
            name: stands in messages before the key, such as `camera[1].`; empty at the top.
            errors: grows by one sentence for each mistake.
        """
        self._name = name
        self._errors = errors
        self._asked: list[str] = []
        if not isinstance(values, Mapping):
            errors.append(f"expected a table as {name.rstrip('.')}, got {values!r}")
            values = {}
        self._values: Mapping[str, Any] = values

    def has(self, key: str) -> bool:
        """Whether the user wrote the key."""
        return key in self._values

    def text(self, key: str, default: T, choices: tuple[str, ...] = ()) -> str | T:
        """Return a string, one of `choices` where there are some."""
        value: str | T = self._get(key, default, str, "text")
        if choices and value is not default and value not in choices:
            self.wrong(key, f"one of {', '.join(choices)}", value)
            return default
        return value

    def number(self, key: str, default: T, low: float, high: float = math.inf) -> float | T:
        """Return a finite number from `low` to `high`."""
        value: float | T = self._get(key, default, (int, float), "a number")
        if not self.has(key) or not isinstance(value, (int, float)):
            return value
        if not (low <= value <= high and math.isfinite(value)):
            self.wrong(key, f"a finite number{_range(low, high)}", value)
            return default
        return value

    def whole(self, key: str, default: T, low: int, high: float = math.inf) -> int | T:
        """Return a whole number from `low` to `high`."""
        value: int | T = self._get(key, default, int, "a whole number")
        if self.has(key) and isinstance(value, int) and not low <= value <= high:
            self.wrong(key, f"a whole number{_range(low, high)}", value)
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        self._asked.append(key)
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "true or false", value)
            return default
        return value

    def path(self, key: str) -> Path | None:
        """Return a path; None where the key is absent."""
        value = self.text(key, None)
        return None if value is None else Path(value)

    def table(self, key: str) -> "Table | None":
        """Return a table inside this one; None where it is absent."""
        self._asked.append(key)
        if key not in self._values:
            return None
        return Table(self._values[key], f"{self._name}{key}.", self._errors)

    def tables(self, key: str) -> list["Table"]:
        """Return an array of tables."""
        self._asked.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list):
            self.wrong(key, f"an array of tables, [[{key}]]", values)
            return []
        return [
            Table(value, f"{self._name}{key}[{index}].", self._errors)
            for index, value in enumerate(values)
        ]

    def build(self, make: Callable[[], T]) -> T | None:
        """Return what `make` makes, or note why it refuses."""
        try:
            return make()
        except DataError as error:
            self._errors.append(f"{self._name.rstrip('.') or 'the configuration'}: {error}")
            return None

    def wrong(self, key: str, expected: str, value: object) -> None:
        """Note a mistake."""
        self._errors.append(f"{self._name}{key}: expected {expected}, got {value!r}")

    def finish(self) -> None:
        """Note the keys that nobody asked for; call it last."""
        for key in self._values:
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, n=1)
                hint = f", did you mean {close[0]!r}?" if close else ""
                self._errors.append(f"{self._name}{key}: there is no such setting{hint}")

    def _get(self, key: str, default: Any, kind: Any, expected: str) -> Any:
        self._asked.append(key)
        if key not in self._values:
            return default
        value = self._values[key]
        # In Python true is a number.
        if isinstance(value, bool) or not isinstance(value, kind):
            self.wrong(key, expected, value)
            return default
        return value


def _range(low: float, high: float) -> str:
    start = "" if low == -math.inf else f" from {low:g}"
    return start + ("" if high == math.inf else f" to {high:g}")
