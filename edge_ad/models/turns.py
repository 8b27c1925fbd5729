"""Turned copies of the training pictures, and whether the good pictures ask for them.

Parts that fall onto the belt in any direction are good in any direction. A detector then learns
each picture in several directions: as it is and upside down, or after each quarter turn. Such
turns need no pixel to be interpolated and no corner to be filled, so that nothing becomes good that
was in no picture. Nothing is mirrored: a mirrored part is a defective one.

The good pictures alone decide whether turned copies are good parts (`lie_in_any_direction`).
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_ad.config import TurningConfig
from edge_ad.data import Dataset
from edge_ad.models.detector import BATCH_SIZE, Detector
from edge_ad.models.leave_one_out import FEWEST
from edge_ad.models.machine import free_memory
from edge_ad_runtime.errors import ConfigError

logger = logging.getLogger(__name__)

COMPARED = ((8, 2.0), (24, 1.45))
"""How many pictures are compared with each other turned, and how much farther away a place of a
turned picture may then be. Where parts lie still, 8 pictures mostly settle it; 24 tell those apart
from parts that lie in any direction (benchmarks/accuracy.md)."""

ON_AVERAGE = 6.0
"""With n compared pictures, turned ones may be 1 + 6 / n times as far on average over all places:
1.25 with 24. Of parts that lie in any direction they are as far as the others, but for chance (1.17
at most was seen). In textures with a grain, woven ones and grids no place stands out, but all are
1.24 to 2.3 times as far."""

CELL = 8
"""Side, in patches, of the places: a print at a fixed place must not be lost in the whole."""

MOST_COPIES = 2000
"""Pictures and their copies, beyond which no copies are chosen: so many pictures show all
directions, and copies would take memory and time."""


MEMORY_PER_FEATURE = 6
"""Bytes that a fit needs for each feature of each copy, with what the coreset needs beside it."""


class TurningDetector(Detector):
    """What detectors share that can learn each picture in several directions."""

    config: TurningConfig

    def __init__(self, config: TurningConfig) -> None:
        """Set up an unfitted detector; raises what `Detector` raises."""
        super().__init__(config)
        self._asked_turns = config.turns

    @abstractmethod
    def describe(self, frames: Tensor) -> Tensor:
        """Describe each patch of frames (N, h, w, 3): (N, patches, channels)."""

    @property
    def turns(self) -> int:
        """In how many directions each picture of the fit is learnt."""
        return self.config.turns or 1

    def prepare(self, dataset: Dataset) -> None:
        """Choose the directions, unless they were asked for; `config.turns` says what came.

        Raises:
            ConfigError: quarter turns were asked for, and the input is not square.
        """
        height, width = self.preprocessing.input_size
        if self._asked_turns == 4 and height != width:
            raise ConfigError(
                f"expected a square input for quarter turns, got {height}x{width} pixels: give "
                "--turns 2, or a square --input-size"
            )
        turns = self._asked_turns or self._chosen_turns(dataset)
        self.config = replace(self.config, turns=turns)

    def turned(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Follow each frame of batches (n, h, w, 3) with its copies; batches do not grow."""
        if self.turns == 1:
            yield from batches
            return
        quarters = range(0, 4, 4 // self.turns)
        for frames in batches:
            for part in torch.split(frames, max(1, len(frames) // self.turns)):
                copies = torch.stack([torch.rot90(part, turn, (1, 2)) for turn in quarters], 1)
                yield copies.flatten(0, 1)

    def _chosen_turns(self, dataset: Dataset) -> int:
        height, width = self.preprocessing.input_size
        if height != width or 4 * len(dataset) > MOST_COPIES:
            return 1
        most = min(COMPARED[-1][0], len(dataset))
        chosen = torch.linspace(0, len(dataset) - 1, most).round().int().tolist()
        read = [dataset.read(dataset[index]) for index in chosen]
        frames = [self.preprocessing.apply(frame) for frame in read if frame is not None]
        if len(frames) < FEWEST or not lie_in_any_direction(
            self._described, torch.from_numpy(np.stack(frames)), self.grid
        ):
            return 1
        features = 4 * len(dataset) * self.grid[0] * self.grid[1] * self.n_channels
        if MEMORY_PER_FEATURE * features > free_memory(self.device):
            logger.warning(
                "the good parts lie in any direction, but in four directions %d pictures might not "
                "fit into memory: they are learnt as they are; fewer pictures, or a smaller "
                "--input-size, would fit",
                len(dataset),
            )
            return 1
        return 4

    def _described(self, frames: Tensor) -> Tensor:
        parts = torch.split(frames, BATCH_SIZE)
        return torch.cat([self.describe(part.to(self.device)) for part in parts])


def lie_in_any_direction(
    describe: Callable[[Tensor], Tensor], frames: Tensor, grid: tuple[int, int]
) -> bool:
    """Tell from good pictures whether turned copies of them are good pictures, too.

    If parts lie in any direction, pictures that are turned are as good examples for a new part as
    pictures that are not. Each picture is left out in turn, and each of its patches is compared
    with the patches that the others have at the same position: as they are, and after each quarter
    turn. On average over pictures, no place of the picture may be much farther from the turned
    ones, nor may the whole picture be farther.

    Args:
        describe: frames (n, h, w, 3) to their patches (n, positions, channels).
        frames: (m, h, w, 3), square, 3 of them or more.
        grid: height and width of the grid of positions.
    """
    for count, limit in COMPARED:
        compared = frames[:: max(1, len(frames) // count)]
        own = describe(compared)
        usual = _distance_to_others(own, own, grid)
        average = float(usual.mean())
        of_place = usual.clamp(min=average)  # a plain background differs by nothing
        overall = (1 + ON_AVERAGE / len(compared)) * average
        for quarters in (1, 2, 3):
            turned = describe(torch.rot90(compared, quarters, (1, 2)))
            distance = _distance_to_others(own, turned, grid)
            if bool((distance > limit * of_place).any()) or float(distance.mean()) > overall:
                return False
    return True


def _distance_to_others(own: Tensor, others: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum over pictures how far they are from the nearest of the others: (1, cells, cells).

    Two such sums over the same pictures are compared, so nothing is divided by their number.

    Args:
        own: patches (m, positions, channels).
        others: the same of the pictures that they are compared with, each but for its own.
        grid: of the positions.
    """
    distance = torch.zeros_like(own[0, :, 0])
    for picture, patches in enumerate(own):
        rest = torch.cat([others[:picture], others[picture + 1 :]])
        distance += (rest - patches).square().sum(dim=2).amin(dim=0).sqrt()
    side = min(CELL, *grid)
    return functional.avg_pool2d(distance.reshape(1, *grid), side, max(1, side // 2))
