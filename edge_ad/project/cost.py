"""What a training and a verdict cost on this machine, measured on a few of the real pictures."""

from dataclasses import dataclass
from itertools import islice
from time import perf_counter

from edge_ad.config import DetectorConfig
from edge_ad.data import Category, Dataset
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.picture_file import read_frame

_FEW, _MORE = 4, 10
"""Pictures of the two fits: what a picture costs, and how that grows with their number."""

_START_SECONDS = 6.0
"""To start Python, load PyTorch and write the report."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a configuration costs.

    Attributes:
        fit_seconds: of a fit, for each picture.
        growth_seconds: of a fit, for the square of the number of pictures: the coreset grows faster
            than the pictures do.
        picture_ms: one verdict in PyTorch on this machine; the exported file is quicker.
    """

    fit_seconds: float
    growth_seconds: float
    picture_ms: float

    def train_seconds(self, n_train: int, n_test: int) -> float:
        """Return about how long a training takes, with this many pictures to learn and to test."""
        fit = self.fit_seconds * n_train + self.growth_seconds * n_train**2
        return _START_SECONDS + fit + self.picture_ms / 1000 * n_test


def measure_cost(config: DetectorConfig, category: Category) -> Cost:
    """Fit a few pictures of a category, and score some.

    Raises:
        DataError: too few or unreadable pictures.
    """
    # Here, as PyTorch takes seconds to load, and the pages that show a cost must not wait for it.
    from edge_ad.models import create
    from edge_ad.models.leave_one_out import FEWEST

    n_train = len(category.train)
    if n_train < FEWEST:
        raise DataError(f"expected at least {FEWEST} pictures of good parts, got {n_train}")
    few, more = min(_FEW, n_train), min(_MORE, n_train)
    detector = create(config)
    detector.fit(_first(category.train, more))  # the first use of a network is slower
    detector = create(detector.config)  # what it chose, such as turned copies, holds for both fits
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
    picture_ms = 1000 * (perf_counter() - started) / few
    return Cost(fit_seconds=linear, growth_seconds=square, picture_ms=picture_ms)


def _first(dataset: Dataset, count: int) -> Dataset:
    return Dataset(islice(dataset, count), name=dataset.name, skip_bad=True)
