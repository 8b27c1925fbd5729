"""Single measurements, kept as JSON lines, so that an interrupted run continues where it was."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.tools import PeerError


class Measurements:
    """What was measured so far; a failure is a measurement, too."""

    def __init__(
        self, path: Path, forget: Callable[[Mapping[str, Any]], bool] = lambda key: False
    ) -> None:
        """Read the file, if there is one.

        Args:
            path: of the JSON lines.
            forget: tells of a key whether its measurement is dropped and made anew.
        """
        self._path = path
        self._found: dict[str, dict[str, Any]] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for record in map(json.loads, lines):
            if not forget(record["key"]):
                self._found[_text(record["key"])] = record
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in self._found.values()))

    def get(
        self, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the figures of a key, which hold `error` where the tool failed.

        Args:
            key: what is measured, in JSON values; `table` names the table it belongs to.
            measure: makes the measurement if it is not there yet.
        """
        text = _text(key)
        if text not in self._found:
            print(f"measuring {text}", file=sys.stderr, flush=True)
            try:
                figures = dict(measure())
            except PeerError as error:
                figures = {"error": str(error)}
            record = {"key": dict(key), "figures": figures, "at": round(time.time())}
            self._found[text] = record
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        return dict(self._found[text]["figures"])


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
