"""What the harness must find: an exception, a hang, too much memory, a dead process."""

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

from edge_ad_runtime.errors import DataError
from tests.fuzz.harness import Target


class Fuzz(Target[int]):
    """Inputs are their own numbers."""

    def seeds(self, folder: Path) -> Sequence[int]:
        """Return the one input that all others are made of."""
        return [0]

    def mutate(self, rng: random.Random, seed: int) -> int:
        """Return a number from 0 to 5, each equally often."""
        return rng.randrange(6)

    def run(self, data: int, folder: Path) -> None:
        """Misbehave in the way of the number."""
        if data == 1:
            1 / 0  # noqa: B018
        if data == 2:
            for _ in itertools.count():
                pass
        if data == 3:
            bytearray(4 * 1024**3)
        if data == 4:
            os._exit(3)
        raise DataError("expected another number")
