"""Proof at export time: the pictures, and what PyTorch and the model file make of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_ad.data import Dataset, Sample
from edge_ad.evaluate import Evaluator, Metrics
from edge_ad.models import Detector, Prediction
from edge_ad.progress import Bar
from edge_ad.runs import Run
from edge_ad_runtime import Result, Scorer
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.golden import NEGLIGIBLE, Golden
from edge_ad_runtime.model.image import Frame

MAX_TRAINING = 64
"""Training pictures that are compared; of the test split, all are."""

TELLING = 0.1
"""Of the decision limit: lower scores are mostly rounding, as SPADE's of fitted pictures are."""

BATCH_SIZE = 8

_TOLERANCES = {"fp32": 2e-3, "int8": 1e-2, "fp16": 5e-2}
"""How far a golden frame's score may be off on another processor or accelerator, relative."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProofPictures:
    """The pictures of a run that still lie where they did; a mask that does not is left out.

    Attributes:
        training: good pictures that were fitted, at most `MAX_TRAINING`, evenly spaced; of a run
            of format 1 the held-out pictures that gave its limit.
        test: the test split.
    """

    training: Dataset
    test: Dataset

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.training) + len(self.test)

    @classmethod
    def of(cls, run: Run) -> "ProofPictures":
        """Look for the pictures of a run.

        Raises:
            DataError: none of them is there any more.
        """
        listed = [Sample(path=item.path) for item in run.good]
        listed += [item.sample for item in run.held_out]
        training = [sample for sample in listed if sample.path.is_file()]
        test = [
            item.sample
            if item.sample.mask_path is None or item.sample.mask_path.is_file()
            else replace(item.sample, mask_path=None)
            for item in run.scored
            if item.sample.path.is_file()
        ]
        if not training and not test:
            paths = [sample.path for sample in listed]
            paths += [item.sample.path for item in run.scored]
            raise DataError(
                f"none of the {len(paths)} pictures of the run {run.folder} is there any more "
                f"(first: {paths[0] if paths else 'none listed'}): bring them back, because the "
                "export is proven on them"
            )
        return cls(Dataset(_spread(training, MAX_TRAINING)), Dataset(test))

    def frame(self, index: int) -> Frame:
        """Read one of the pictures; the training pictures come first.

        Raises:
            DataError: it cannot be read.
        """
        dataset, index = (
            (self.training, index)
            if index < len(self.training)
            else (self.test, index - len(self.training))
        )
        return dataset.load(dataset[index])

    def read(self) -> Iterator[tuple[Sample, Frame]]:
        """Read the training pictures, then the others.

        Raises:
            DataError: a picture cannot be read.
        """
        for index, sample in enumerate([*self.training, *self.test]):
            yield sample, self.frame(index)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of the same n pictures by PyTorch and by the model file, training pictures first.

    Attributes:
        names: file names.
        n_training: training pictures among them.
        good: which are good, bool (n,).
        expected: scores by PyTorch, (n,).
        got: scores by the model file, (n,).
        expected_peaks: highest values of PyTorch's maps, (n,).
        got_peaks: highest values of the model file's maps, (n,).
        map_differences: largest difference of a map value of each picture, relative to that map's
            highest one, or to `NEGLIGIBLE` of the decision limit where that is more, (n,).
        metrics: figures of the test pictures by PyTorch, and by the model file.
    """

    names: tuple[str, ...]
    n_training: int
    good: NDArray[np.bool_]
    expected: NDArray[np.float64]
    got: NDArray[np.float64]
    expected_peaks: NDArray[np.float64]
    got_peaks: NDArray[np.float64]
    map_differences: NDArray[np.float64]
    metrics: tuple[Metrics, Metrics]


def compare(detector: Detector, scorer: Scorer, pictures: ProofPictures) -> Comparison:
    """Score all pictures with both.

    Raises:
        DataError: a picture cannot be read.
    """
    evaluators = Evaluator(), Evaluator()
    scores: list[tuple[float, float]] = []
    peaks: list[tuple[float, float]] = []
    map_differences: list[float] = []
    floor = max(NEGLIGIBLE * abs(scorer.info.threshold), 1e-12)
    samples = [*pictures.training, *pictures.test]
    for number, (sample, ours, theirs) in enumerate(_scored(detector, scorer, pictures)):
        both: tuple[Prediction | Result, ...] = (ours, theirs)
        maps = [one.anomaly_map for one in both]
        scores.append((ours.score, theirs.score))
        peaks.append((float(maps[0].max()), float(maps[1].max())))
        scale = max(float(np.abs(maps[0]).max()), floor)
        map_differences.append(float(np.abs(maps[1] - maps[0]).max()) / scale)
        if number >= len(pictures.training):
            for evaluator, one in zip(evaluators, both, strict=True):
                evaluator.add(sample, one.score, one.anomaly_map, detector.preprocessing)
    expected, got = np.array(scores, np.float64).T
    expected_peaks, got_peaks = np.array(peaks, np.float64).T
    return Comparison(
        names=tuple(sample.path.name for sample in samples),
        n_training=len(pictures.training),
        good=np.array([not sample.anomalous for sample in samples]),
        expected=expected,
        got=got,
        expected_peaks=expected_peaks,
        got_peaks=got_peaks,
        map_differences=np.array(map_differences),
        metrics=(evaluators[0].result().metrics, evaluators[1].result().metrics),
    )


def golden_frames(
    scorer: Scorer, pictures: ProofPictures, comparison: Comparison, precision: str
) -> Golden:
    """Choose the pictures that devices check the file with: an ordinary one and the most anomalous.

    Args:
        scorer: the file.
        pictures: that were compared.
        comparison: of them.
        precision: of the graph: fp32, fp16 or int8.

    Raises:
        DataError: a picture cannot be read.
    """
    order = np.argsort(comparison.got)
    telling = comparison.got >= TELLING * abs(scorer.info.threshold)
    good = [index for index in order if comparison.good[index]]
    ordinary = [index for index in good if telling[index]] or good
    chosen = dict.fromkeys([*ordinary[len(ordinary) // 2 :][:1], order[-1]])
    geometry = replace(scorer.preprocessing, in_graph=False)
    frames = [geometry.apply(pictures.frame(index)) for index in chosen]
    # Mirrored, a fitted picture is one that SPADE has not seen.
    frames = [
        frame if telling[index] else np.ascontiguousarray(frame[:, ::-1])
        for index, frame in zip(chosen, frames, strict=True)
    ]
    return Golden.record(scorer, frames, _TOLERANCES[precision])


def _scored(
    detector: Detector, scorer: Scorer, pictures: ProofPictures
) -> Iterator[tuple[Sample, Prediction, Result]]:
    """Score in batches, with a progress bar."""
    todo = pictures.read()
    with Bar(len(pictures), "proof", unit="picture") as bar:
        while batch := list(islice(todo, BATCH_SIZE)):
            samples, frames = zip(*batch, strict=True)
            ours, theirs = detector.predict(frames), scorer.score_batch(frames)
            yield from zip(samples, ours, theirs, strict=True)
            bar.update(len(batch))


def _spread(items: list[Item], most: int) -> list[Item]:
    """Take at most this many, evenly spaced."""
    step = max(len(items) / most, 1.0)
    return [items[int(index * step)] for index in range(min(len(items), most))]
