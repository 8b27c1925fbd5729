"""What a training and a verdict cost on this machine, measured on a few of the real pictures."""

from dataclasses import dataclass
from itertools import islice
from time import perf_counter

from edge_ad.config import DetectorConfig
from edge_ad.data import Category, Dataset
from edge_ad.models import create
from edge_ad.models.good import FEWEST
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.image import read_frame

_FEW, _MORE = 6, 18
"""Pictures of the two fits: what a picture costs, and how that grows with their number."""

_START_SECONDS = 6.0
"""To start Python, load PyTorch and write the report."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a configuration costs.

    Attributes:
        train_seconds: a whole training, as a rough estimate.
        picture_ms: one verdict in PyTorch on this machine; the exported file is quicker.
    """

    train_seconds: float
    picture_ms: float


def measure_cost(config: DetectorConfig, category: Category) -> Cost:
    """Fit a few pictures of a category, score some, and extrapolate to all of them.

    The time of a fit is taken as a x n + b x n^2, n pictures: the coreset grows faster than the
    pictures do.

    Raises:
        DataError: too few or unreadable pictures.
    """
    n_train, n_test = len(category.train), len(category.test)
    if n_train < FEWEST:
        raise DataError(f"expected at least {FEWEST} pictures of good parts, got {n_train}")
    detector = create(config)
    few, more = min(_FEW, n_train), min(_MORE, n_train)
    detector.fit(_first(category.train, FEWEST))  # the first use of a network is slower
    times = {}
    for count in (few, more):
        started = perf_counter()
        detector.fit(_first(category.train, count))
        times[count] = perf_counter() - started
    linear, square = times[few] / few, 0.0
    if more > few:
        square = max(0.0, (times[more] / more - times[few] / few) / (more - few))
        linear = max(0.0, times[more] / more - square * more)
    frames = [read_frame(sample.path) for sample in islice(category.train, few)]
    started = perf_counter()
    for frame in frames:
        detector.predict([frame])
    picture_seconds = (perf_counter() - started) / few
    fit_seconds = linear * n_train + square * n_train**2
    return Cost(
        train_seconds=_START_SECONDS + fit_seconds + picture_seconds * n_test,
        picture_ms=1000 * picture_seconds,
    )


def _first(dataset: Dataset, count: int) -> Dataset:
    return Dataset(islice(dataset, count), name=dataset.name, skip_bad=True)
