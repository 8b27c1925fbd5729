"""The real pictures of a run on which its export is proven."""

from pathlib import Path

from edge_ad.data import GOOD, Sample
from edge_ad.runs import Run
from edge_ad_runtime.errors import DataError

MAX_PER_LABEL = 64
"""Pictures of each kind, good and anomalous, that are compared."""


def pictures_for_proof(run: Run) -> list[Sample]:
    """Return pictures of the run that still lie where they did, at most `MAX_PER_LABEL` of a kind.

    Those of the test split come first, then the good ones that gave the limit.

    Raises:
        DataError: no picture of a good part is there any more.
    """
    every = [item.sample for item in run.scored]
    every += [Sample(path=path) for path in pictures_of_limit(run)]
    there = [sample for sample in every if sample.path.is_file()]
    good = [sample for sample in there if sample.label == GOOD]
    if not good:
        raise DataError(
            f"none of the {len(every)} pictures of the run {run.folder} is there any more "
            f"(first: {every[0].path if every else 'none listed'}): "
            "bring them back, the export is proven on them"
        )
    return _spread(good) + _spread([sample for sample in there if sample.label != GOOD])


def pictures_of_limit(run: Run) -> list[Path]:
    """Return the good pictures that gave the decision limit."""
    return [picture.path for picture in run.good] or [item.sample.path for item in run.held_out]


def _spread(samples: list[Sample]) -> list[Sample]:
    """Take evenly spaced ones, so that every kind of defect is among them."""
    step = max(len(samples) / MAX_PER_LABEL, 1.0)
    return [samples[int(index * step)] for index in range(min(len(samples), MAX_PER_LABEL))]
