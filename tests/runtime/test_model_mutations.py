"""Damaged and hostile model files: an error that explains itself, or a verdict; nothing else."""

import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_ad_runtime import EdgeAdError, ModelInfo, Scorer

MUTATIONS = 600
MEMORY = 4 << 30
ODD = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b'"x"',
    b'""',
    b"[]",
    b"{}",
    b"[[1]]",
    b'"\\ud800"',
)


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Flip bits, cut, remove or double a part, or lay an odd value over the metadata."""
    kind = generator.choice(("flip", "flip", "cut", "remove", "double", "lay over", "lay over"))
    document = content.index(b'{"')
    start, end = sorted(generator.sample(range(len(content)), 2))
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(generator.choice((1, 1, 2, 8))):
            changed[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        return bytes(changed)
    if kind == "lay over":
        # After a colon, and over as many bytes, so that the text is still read as JSON.
        place = content.index(b": ", generator.randrange(document, len(content) - 400)) + 2
        value = generator.choice(ODD)
        old = max(content.index(b",", place) - place, 0)
        value = value.ljust(old)
        return content[:place] + value + content[place + len(value) :]
    return {
        "cut": content[:start],
        "remove": content[:start] + content[end:],
        "double": content[:end] + content[start:],
    }[kind]


def try_all(path: Path) -> None:
    """Score with mutations of a file; whatever is not an `EdgeAdError` ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    content, frame = path.read_bytes(), np.zeros((32, 64, 3), np.uint8)
    verdicts = 0
    for number in range(MUTATIONS):
        path.write_bytes(mutate(content, random.Random(number)))
        try:
            Scorer(path, device="cpu", threads=1).score(frame)
            verdicts += 1
        except EdgeAdError as error:
            if not str(error).isprintable():
                raise ValueError(f"mutation {number}: the message cannot be printed") from error
    print(verdicts)


def test_no_mutation_is_a_traceback(write_model: Callable[..., Path], info: ModelInfo) -> None:
    path = write_model(metadata=info.to_metadata())  # without a checksum, which would end it early
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) < MUTATIONS


if __name__ == "__main__":
    try_all(Path(sys.argv[1]))
