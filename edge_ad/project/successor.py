"""A retrained detector against the one before, on every picture that is known by now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.data import Dataset, Sample
from edge_ad.project.folder import Picture
from edge_ad.project.job import Job
from edge_ad.runs import DETECTOR_FILE, Run
from edge_ad_runtime.model.calibration import default_rate

if TYPE_CHECKING:
    from edge_ad.models import Detector

_RATE_OPTION = "--false-alarm-rate"


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


def retraining(job: Job, run: Run) -> list[str]:
    """Return the command line that trains as a job did, with the rate that was chosen since.

    Args:
        job: a training.
        run: what it made.
    """
    arguments = list(job.arguments)
    calibration = run.metrics.calibration
    if calibration is None or calibration.rate == default_rate(calibration.of_scores.n):
        return arguments  # more pictures may promise less
    if _RATE_OPTION in arguments:
        at = arguments.index(_RATE_OPTION)
        del arguments[at : at + 2]
    return [*arguments, _RATE_OPTION, str(calibration.rate)]


def compare_runs(
    before: tuple[Run, "Detector"], after: tuple[Run, "Detector"], pictures: Sequence[Picture]
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


def _verdicts(run: Run, detector: "Detector", pictures: Sequence[Picture]) -> Verdicts:
    scores = {item.sample.path: item.score for item in run.scored}
    scores |= {one.path: one.score for one in run.good}
    scores |= _moved(run, [one.path.resolve() for one in pictures])
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


def _moved(run: Run, paths: Sequence[Path]) -> dict[Path, float]:
    """Return the leave-one-out scores of pictures that got another label since the training.

    A label is a place, so they are found by their names; a file that is newer than the training is
    another picture.
    """
    trained_at = (run.folder / DETECTOR_FILE).stat().st_mtime
    left = {one.path.name: one for one in run.good if not one.path.exists()}
    return {
        path: left[path.name].score
        for path in paths
        if path.name in left and path.stat().st_mtime < trained_at
    }
