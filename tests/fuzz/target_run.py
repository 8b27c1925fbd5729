"""Run folders: options, tensors, figures and scores that were damaged or do not fit together."""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_ad.models import load
from edge_ad.runs import Run
from tests.fuzz.harness import ROOT, Target, mutate_bytes

Files = Mapping[str, bytes]

_NAMES = ("detector.json", "detector.safetensors", "metrics.json", "scores.csv", "held_out.csv")
_VALUES = (
    *(
        b"0",
        b"-1",
        b"1",
        b"2",
        b"7",
        b"16",
        b"1e308",
        b"-1e308",
        b"1e999",
        b"NaN",
        b"true",
        b"null",
    ),
    *(
        b'""',
        b'"x"',
        b"[]",
        b"{}",
        b"[1, 2]",
        b"[[1]]",
        b"9" * 400,
        b"[" * 3000,
        b'"\\ud800"',
        b"32",
    ),
    *(b'"padim"', b'"spade"', b'"resnet18"', b"[64, 96]", b"[8192, 8192]", b'["stage2"]', b"8192"),
)
_VALUE = re.compile(rb'(?<=: )(?:"[^"]*"|\[[^\]]*\]|-?[\w.]+)')


class Fuzz(Target[Files]):
    """Load the detector, score a frame with it, and read the rest of the run."""

    def seeds(self, folder: Path) -> Sequence[Files]:
        """Return the run folders of the first version."""
        return [
            {name: (ROOT / "tests/golden" / method / name).read_bytes() for name in _NAMES}
            for method in ("padim", "patchcore", "spade")
        ]

    def mutate(self, rng: random.Random, seed: Files) -> Files:
        """Replace a value of a JSON file, or damage any file; some checksums are made to fit."""
        files = dict(seed)
        name = rng.choice(_NAMES)
        if name.endswith(".json") and rng.random() < 0.7:
            places = list(_VALUE.finditer(files[name]))
            for place in sorted(
                rng.sample(places, rng.choice((1, 1, 2))), key=lambda m: -m.start()
            ):
                start, stop = place.span()
                files[name] = files[name][:start] + rng.choice(_VALUES) + files[name][stop:]
        elif name == "detector.safetensors" and rng.random() < 0.5:
            # The header is a length and JSON: what lies there breaks more than a weight does.
            files[name] = mutate_bytes(rng, files[name][:4000]) + files[name][4000:]
        else:
            files[name] = mutate_bytes(rng, files[name])
        if name == "detector.safetensors" and rng.random() < 0.8:
            document = json.loads(files["detector.json"])
            document["sha256"] = hashlib.sha256(files[name]).hexdigest()
            files["detector.json"] = json.dumps(document).encode()
        return files

    def run(self, data: Files, folder: Path) -> None:
        """Read everything that a run folder holds."""
        for name, content in data.items():
            (folder / name).write_bytes(content)
        Run.read(folder)
        load(folder, device="cpu").predict([np.zeros((40, 50, 3), np.uint8)])
