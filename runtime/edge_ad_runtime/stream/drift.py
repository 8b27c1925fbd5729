"""Tell when the parts of a camera no longer look as before, with few false alarms.

Exchangeability martingales (Vovk, Nouretdinov and Gammerman, Testing exchangeability on-line,
2003) bet against the claim that the parts come in no particular order. Each part's score,
brightness, sharpness, position and centre of brightness is ranked among those of all earlier parts
of the stream, its score among the good parts of the training too; while nothing changes, the ranks
are uniform and no strategy wins in the long run. A capital that has grown 10,000-fold is evidence
of a change.
"""

import random
from array import array
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from statistics import median

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Appearance, appearance
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result

ALARM_CAPITAL = 1e4
REFERENCE_SIZE = 4096
"""Parts that are remembered, a random choice of all: 32 KB for each measure."""

_BETS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_JUMP = 0.01
_FLOOR = 5e-3
"""A capital never falls below this: without a floor it shrinks by half every 175 parts in which
nothing changes, and a change after a quiet day takes hundreds of parts to be seen. The price is
known: a false alarm comes once in 2 million parts (10,000 / 0.005) or less often, on average, since
the expected growth of a capital is at most the floor for each part."""

_RECENT = 32
_SCENE_PARTS, _SCENE_ANOMALOUS = 20, 18
"""18 of 20 parts in a row are anomalous: that is not a batch of defects but another picture."""

_POSITION = "the position of the camera and of the part, and the direction of the light"
_LIGHT = "the direction of the light, and the position of the camera and of the part"
_WHAT_TO_CHECK = {
    "score": "focus, position, dirt on the lens, and whether the product itself has changed",
    "brightness": "the lamps, the exposure and light from outside",
    "sharpness": "the focus, dirt on the lens, vibration and the camera's compression",
    "horizontal position": _POSITION,
    "vertical position": _POSITION,
    "horizontal centre of brightness": _LIGHT,
    "vertical centre of brightness": _LIGHT,
}
"""What a person should look at where a measure has changed."""

MEASURES = tuple(_WHAT_TO_CHECK)


class Reference:
    """Earlier values, in order of size; of more than it can hold, a random choice of all."""

    def __init__(
        self, values: Iterable[float], generator: random.Random, size: int = REFERENCE_SIZE
    ) -> None:
        """Start with some values, all of which are kept while there is room.

        Args:
            values: the first ones, not more than `size`.
            generator: chooses what is kept.
            size: how many values are held.
        """
        self._values = array("d", sorted(values))
        self._generator = generator
        self._size = size
        self._seen = len(self._values)

    @property
    def median(self) -> float:
        """The median; there must be a value."""
        return self._values[len(self._values) // 2]

    def rank(self, value: float) -> float:
        """Return the share of values above this one, 0..1; of those equal to it, itself too, half.

        The usual rule breaks ties by chance. The bets are linear in the rank, so that its mean is
        as fair, and a measure that stays the same is no evidence at all.
        """
        count = len(self._values)
        low, high = bisect_left(self._values, value), bisect_right(self._values, value)
        return (count - high + 0.5 * (high - low + 1)) / (count + 1)

    def add(self, value: float) -> None:
        """Remember a value, perhaps in place of another (Vitter, Random sampling, 1985)."""
        self._seen += 1
        if len(self._values) >= self._size:
            if self._generator.random() * self._seen >= self._size:
                return
            del self._values[self._generator.randrange(self._size)]
        insort(self._values, value)


class ExchangeabilityTest:
    """The capital of a simple jumper (Vovk, Testing randomness online, 2021) on one measure.

    Attributes:
        capital: the evidence of a change so far; 1 at the start.
    """

    def __init__(self, reference: Reference, *, jump: float = _JUMP, floor: float = _FLOOR) -> None:
        """Start with the capital spread evenly over the bets.

        Args:
            reference: what the values are ranked among; each value is added to it.
            jump: share of the capital that is redistributed at each value.
            floor: the capital never falls below this; 0: the plain martingale.
        """
        self.capital = 1.0
        self._reference = reference
        self._jump = jump
        self._floor = floor
        self._stakes = [1.0 / len(_BETS)] * len(_BETS)

    def update(self, value: float) -> float:
        """Bet on a value, remember it, and return the capital."""
        lean = self._reference.rank(value) - 0.5
        self._reference.add(value)
        kept, spread = 1 - self._jump, self._jump * self.capital / len(_BETS)
        self._stakes = [
            (kept * stake + spread) * (1 + bet * lean)
            for stake, bet in zip(self._stakes, _BETS, strict=True)
        ]
        self.capital = sum(self._stakes)
        if self.capital < self._floor:
            self.capital = self._floor
            self._stakes = [self._floor / len(_BETS)] * len(_BETS)
        return self.capital


class Drift:
    """Watches one camera for change: events `drift` and `scene changed`.

    One observation a part: a frame of a camera or a video that shows the same static scene as the
    last observed one is passed over. After an alarm the parts that follow are the new reference, so
    that each change is reported once.
    """

    def __init__(self, info: Callable[[], ModelInfo], *, seed: int = 0) -> None:
        """Start without parts.

        Args:
            info: gives the model in use; its calibration holds scores of good parts.
            seed: of the generator that chooses what is remembered.
        """
        self._info = info
        self._generator = random.Random(seed)
        self._model = info()
        self._seen: Appearance | None = None
        self._parts = 0
        self._anomalous: deque[bool] = deque(maxlen=_SCENE_PARTS)
        self._scene_told = False
        self._watches: dict[str, _Watch] = {}
        self._restart(_training_scores(self._model))

    def update(self, captured: CapturedFrame, result: Result) -> Event | None:
        """Take a verdict into account; return an event if the parts have changed."""
        model = self._info()
        if (model.created_at, model.calibration) != (
            self._model.created_at,
            self._model.calibration,
        ):
            self._restart(_training_scores(model))
        self._model = model
        # What the model sees, which is small; it is the same size from one frame to the next.
        seen = appearance(captured.frame if captured.prepared is None else captured.prepared.frame)
        if self._is_standing(captured, seen):
            return None
        self._seen = seen
        self._parts += 1
        for watch, value in zip(self._watches.values(), measured(seen, result.score), strict=True):
            watch.update(value)
        self._anomalous.append(result.anomalous)
        return self._scene_changed(captured) or self._drifted(captured)

    def _is_standing(self, captured: CapturedFrame, seen: Appearance) -> bool:
        """Whether the frame shows the last part once more; a trigger or a file means a part."""
        if self._seen is None or captured.trigger is not None or captured.path is not None:
            return False
        return seen.shows_scene_of(self._seen)

    def _scene_changed(self, captured: CapturedFrame) -> Event | None:
        found = sum(self._anomalous)
        if found <= _SCENE_PARTS // 2:
            self._scene_told = False
        if found < _SCENE_ANOMALOUS or self._scene_told:
            return None
        self._scene_told = True
        since = "from the start" if self._parts <= _SCENE_PARTS else "where it was not so before"
        return Event(
            kind="scene changed",
            message=(
                f"{found} of the last {len(self._anomalous)} parts at {captured.camera} are "
                f"anomalous, {since}: unless they really are defective, these pictures differ from "
                "those of the training. Check camera, position, focus, light, exposure and video "
                "compression beside a picture of the training; then run `edge-ad calibrate`, or "
                "train with pictures of this camera"
            ),
            camera=captured.camera,
            details={"anomalous": found, "parts": len(self._anomalous), "frame": captured.number},
        )

    def _drifted(self, captured: CapturedFrame) -> Event | None:
        measure, watch = max(self._watches.items(), key=lambda item: item[1].test.capital)
        if watch.test.capital < ALARM_CAPITAL:
            return None
        before, now = watch.before, median(watch.recent)
        details: dict[str, object] = {
            "measure": measure,
            "median_before": before,
            "median": now,
            "parts": self._parts,
            "frame": captured.number,
        }
        if measure == "score":
            details |= {"median_score": now, "expected": list(self._model.score_range)}
        self._restart(())
        way = "risen" if now > before else "fallen"
        changed = way if measure in ("score", "brightness", "sharpness") else "moved"
        return Event(
            kind="drift",
            message=(
                f"the {measure} of the parts at {captured.camera} has {changed}: the median of the "
                f"last ones is {now:.4g}, and was {before:.4g} before: check "
                f"{_WHAT_TO_CHECK[measure]}"
            ),
            camera=captured.camera,
            details=details,
        )

    def _restart(self, scores: Iterable[float]) -> None:
        """Forget the earlier parts; good scores of the training may stand in for them."""
        self._watches = {
            measure: _Watch(Reference(scores if measure == "score" else (), self._generator))
            for measure in _WHAT_TO_CHECK
        }


def measured(seen: Appearance, score: float) -> tuple[float, ...]:
    """Return the values of a part that are watched, in the order of `MEASURES`."""
    return score, seen.brightness, seen.log_sharpness, *seen.edge_centre, *seen.centre


class _Watch:
    """The test of one measure, and what its message will say."""

    def __init__(self, reference: Reference) -> None:
        self.test = ExchangeabilityTest(reference)
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self._reference = reference

    @property
    def before(self) -> float:
        return self._reference.median

    def update(self, value: float) -> None:
        self.recent.append(value)
        self.test.update(value)


def _training_scores(model: ModelInfo) -> tuple[float, ...]:
    return () if model.calibration is None else model.calibration.scores
