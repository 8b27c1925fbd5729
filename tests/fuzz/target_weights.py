"""Files for `--weights`: what torch.save and safetensors wrote, damaged."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from edge_ad.backbones.weights import load_strictly, read_state_dict
from tests.fuzz.harness import Target, mutate_bytes

File = tuple[str, bytes]


class Fuzz(Target[File]):
    """Read a state dict and load it into a small network."""

    def seeds(self, folder: Path) -> Sequence[File]:
        """Return a small state dict in each of the three formats."""
        state = _network().state_dict()
        found = [("weights.safetensors", save(state))]
        for name, zipped in (("weights.pth", True), ("weights.pt", False)):
            torch.save(state, folder / name, _use_new_zipfile_serialization=zipped)
            found.append((name, (folder / name).read_bytes()))
        return found

    def mutate(self, rng: random.Random, seed: File) -> File:
        """Damage the file."""
        return seed[0], mutate_bytes(rng, seed[1])

    def run(self, data: File, folder: Path) -> None:
        """Read it as `--weights FILE` does."""
        name, content = data
        (folder / name).write_bytes(content)
        load_strictly(_network(), read_state_dict(folder / name), name)


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
