"""Collect good parts at a camera, and say whether they are fit to set a decision limit."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.cameras import FrameSource
from edge_ad_runtime.cameras.reader import Reader
from edge_ad_runtime.errors import CameraError, DataError, counted
from edge_ad_runtime.model.image import Appearance, appearance
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.scorer import Scorer

logger = logging.getLogger(__name__)

LEAST_PARTS = 5
"""With fewer nothing is written, not even with `--yes`."""

ENOUGH_PARTS = 20

_WIDE = 3.0
_LOW_SHARE = 0.05
"""Of the training's scores: the median of new good parts is hardly ever among so few."""
_COMPARED = 200
"""Latest parts that a new one is compared with."""

_LOOK_SECONDS = 0.2


@dataclass(kw_only=True)
class GoodParts:
    """What was collected.

    Attributes:
        scores: of each part.
        map_maxima: largest value of each part's anomaly map.
        alike: frames that were passed over, since they showed a part that was there already.
        failed: pictures that could not be read or scored.
        complaint: why there are fewer parts than wanted; empty: there are not.
    """

    scores: list[float] = field(default_factory=list)
    map_maxima: list[float] = field(default_factory=list)
    alike: int = 0
    failed: int = 0
    complaint: str = ""


def collect_good_parts(
    scorer: Scorer,
    source: FrameSource,
    *,
    count: int | None,
    patience: float = 60.0,
    keep_alike: bool = False,
    progress: Callable[[int], None] = lambda parts: None,
    clock: Callable[[], float] = monotonic,
) -> GoodParts:
    """Score different parts of a source until there are enough; the source is closed.

    Args:
        scorer: the model.
        source: a camera, a video or pictures.
        count: how many parts; None: as many as the source has.
        patience: seconds without a new part after which a camera is given up.
        keep_alike: take pictures that look alike for different parts.
        progress: called with the number of parts, at each new one.
        clock: monotonic, in seconds.
    """
    parts = GoodParts()
    known: deque[Appearance] = deque(maxlen=_COMPARED)
    last_new = clock()
    with Reader(source) as reader:
        while count is None or len(parts.scores) < count:
            if source.live and clock() - last_new > patience:
                parts.complaint = (
                    f"no new part for {patience:g} s: the belt stands still, or the camera does"
                )
                break
            try:
                captured = reader.take(_LOOK_SECONDS)
                if captured is None:
                    if reader.ended:
                        parts.complaint = "the source has no more pictures" if count else ""
                        break
                    continue
                prepared = scorer.prepare(captured.frame)
                look = appearance(prepared)
                if not keep_alike and any(look.shows_scene_of(other) for other in known):
                    parts.alike += 1
                    continue
                result = scorer.score_prepared([prepared])[0]
            except DataError as error:
                logger.warning("%s", error)
                parts.failed += 1
                continue
            except CameraError as error:
                parts.complaint = f"the camera stopped ({error})"
                break
            known.append(look)
            last_new = clock()
            parts.scores.append(result.score)
            parts.map_maxima.append(float(result.anomaly_map.max()))
            progress(len(parts.scores))
    return parts


def refusal(parts: GoodParts) -> str | None:
    """Say why these parts cannot set a limit at all; None: they can."""
    found = len(parts.scores)
    if found >= LEAST_PARTS:
        return None
    reasons = [f"expected at least {LEAST_PARTS} different good parts, found {found}"]
    if parts.alike:
        reasons.append(
            f"{counted(parts.alike, 'further picture')} of the same static scene: let parts pass, "
            "or count such pictures as different parts with --keep-alike"
        )
    if parts.failed:
        reasons.append(f"{counted(parts.failed, 'picture')} failed")
    if parts.complaint and found:
        reasons.append(parts.complaint)
    return "; ".join(reasons) + ". Nothing has been changed"


def doubts(parts: GoodParts, info: ModelInfo) -> list[str]:
    """Return what speaks against a limit from these parts, one sentence each."""
    found = []
    count = len(parts.scores)
    if parts.complaint:
        found.append(f"{parts.complaint}, after {counted(count, 'part')}")
    if count < ENOUGH_PARTS:
        few = f"{count} parts are few: {ENOUGH_PARTS} or more make a sound limit"
        if parts.alike:
            few += (
                f"; {counted(parts.alike, 'further picture')} of the same static scene counted once"
            )
        found.append(few)
    scores = np.asarray(parts.scores)
    spread = _quartile_range(scores)
    if info.calibration is not None:
        usual = _quartile_range(np.asarray(info.calibration.scores))
    else:
        usual = (info.score_range[1] - info.score_range[0]) / 2
    if spread > _WIDE * usual:
        found.append(
            f"the scores spread {spread / max(usual, 1e-12):.1f} times as wide as those of the "
            "training: some of these parts may be defective, or the scene changes between them"
        )
    middle = float(np.median(scores))
    if middle >= info.threshold:
        found.append(
            f"half of the parts score {middle:.4g} or more, above the model's own limit of "
            f"{info.threshold:.4g}: the pictures differ much from those of the training, and a "
            "limit that lets them pass finds fewer defects; training with pictures of this camera "
            "is better"
        )
    elif info.calibration is not None:
        low = float(np.quantile(info.calibration.scores, _LOW_SHARE))
        if middle < low:
            found.append(
                f"half of the parts score {middle:.4g} or less, below nearly every good part of "
                f"the training ({1 - _LOW_SHARE:.0%} of them, each left out of the fit, scored "
                f"{low:.4g} or more): if these are the pictures of the training, the model knows "
                "them, and a limit from them stops more good parts than promised; take new pictures"
            )
    return found


def _quartile_range(scores: NDArray[np.float64]) -> float:
    low, high = np.quantile(scores, (0.25, 0.75))
    return float(high - low)
