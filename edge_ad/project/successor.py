"""A retrained detector against the one before, on every picture that is known by now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ad.data import Dataset, Sample
from edge_ad.models import Detector
from edge_ad.project.folder import Picture
from edge_ad.runs import Run


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What one run says about all pictures.

    Attributes:
        n_good: good pictures.
        n_false_alarms: of those, at or above the limit.
        n_defective: defective pictures.
        n_missed: of those, below the limit.
        stopped: the pictures at or above the limit.
    """

    n_good: int
    n_false_alarms: int
    n_defective: int
    n_missed: int
    stopped: frozenset[Path]


@dataclass(frozen=True, kw_only=True)
class Succession:
    """Two runs on the same pictures.

    Attributes:
        before: the verdicts of the older run.
        after: those of the newer one.
        mended: pictures that only the newer one judges rightly.
        broken: pictures that only the older one judges rightly.
    """

    before: Verdicts
    after: Verdicts
    mended: tuple[Path, ...]
    broken: tuple[Path, ...]

    @property
    def is_better(self) -> bool:
        """Whether no picture is judged worse, or at least more are mended than broken."""
        return not self.broken or len(self.mended) > len(self.broken)


def compare_runs(
    before: tuple[Run, Detector], after: tuple[Run, Detector], pictures: Sequence[Picture]
) -> Succession:
    """Judge all pictures that are not left out with both runs, each at its own limit.

    A picture that a run has learnt from counts with its leave-one-out score, so that none of the
    two is praised for what it knows by heart.

    Raises:
        DataError: a picture cannot be read.
    """
    known = [picture for picture in pictures if not picture.excluded]
    old, new = _verdicts(*before, known), _verdicts(*after, known)
    changed = [one for one in known if (one.path in old.stopped) != (one.path in new.stopped)]
    mended = tuple(one.path for one in changed if (one.path in new.stopped) != one.is_good)
    broken = tuple(one.path for one in changed if (one.path in old.stopped) != one.is_good)
    return Succession(before=old, after=new, mended=mended, broken=broken)


def _verdicts(run: Run, detector: Detector, pictures: Sequence[Picture]) -> Verdicts:
    scores = {item.sample.path: item.score for item in run.scored}
    scores |= {one.path: one.score for one in run.good}
    new = [Sample(path=one.path) for one in pictures if one.path.resolve() not in scores]
    for sample, prediction in detector.predictions(Dataset(new), "compare"):
        scores[sample.path.resolve()] = prediction.score
    limit = run.metrics.threshold
    stopped = frozenset(one.path for one in pictures if scores[one.path.resolve()] >= limit)
    good = [one.path for one in pictures if one.is_good]
    defective = [one.path for one in pictures if not one.is_good]
    return Verdicts(
        n_good=len(good),
        n_false_alarms=sum(path in stopped for path in good),
        n_defective=len(defective),
        n_missed=sum(path not in stopped for path in defective),
        stopped=stopped,
    )
