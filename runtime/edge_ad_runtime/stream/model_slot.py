"""What scores at the cameras of one model: the model file, and the limit of each camera."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from time import perf_counter

import numpy as np

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.errors import ConfigError, EdgeAdError
from edge_ad_runtime.model.accelerator import CPU
from edge_ad_runtime.model.device_calibration import ANY_CAMERA, DeviceCalibration
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.model.scorer import Scorer

NO_CALIBRATIONS: Mapping[str, DeviceCalibration] = {}

_TRIALS = 5
_GAIN = 0.95


@dataclass(frozen=True, kw_only=True)
class Override:
    """A limit that somebody set at a camera in place of the model's own.

    Attributes:
        threshold: `score >= threshold` is anomalous, in the unit of the model's score.
        who: set it, as the live page or the caller says.
        since: when, aware.
        model: sha256 of the model file whose scores the person had seen.
    """

    threshold: float
    who: str
    since: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    model: str = ""


class ModelSlot:
    """The one owner of a running model and of its cameras' limits.

    The model can be exchanged and limits can be changed from any thread while frames are scored:
    each batch is scored by one model, and judged by the limits that stood when it began.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        content: str = "",
        calibrations: Mapping[str, DeviceCalibration] = NO_CALIBRATIONS,
        threshold: float | None = None,
    ) -> None:
        """Score with this model.

        Args:
            scorer: the model, at its own limit.
            content: sha256 of the file that it was read from.
            calibrations: on this device, by camera; in place of the model's own limit.
            threshold: in place of both.

        Raises:
            ConfigError: the threshold is not a finite number.
        """
        self._lock = threading.Lock()
        self._scorers = _Scorers(scorer, calibrations, threshold)
        self._content = content
        self._overrides: Mapping[str, Override] = {}
        self._last_frame: Frame | None = None

    @property
    def scorer(self) -> Scorer:
        """The model in use, with the limit of the cameras that have none of their own."""
        with self._lock:
            return self._scorers.default

    @property
    def content(self) -> str:
        """The sha256 of the model file in use."""
        with self._lock:
            return self._content

    @property
    def overrides(self) -> Mapping[str, Override]:
        """The limits that people have set, by camera."""
        with self._lock:
            return self._overrides

    def threshold(self, camera: str) -> float:
        """Return the limit in force at a camera."""
        with self._lock:
            override = self._overrides.get(camera)
            return self._scorers.at(camera).threshold if override is None else override.threshold

    def own_threshold(self, camera: str) -> float:
        """Return the limit of a camera while nobody has set another."""
        with self._lock:
            return self._scorers.at(camera).threshold

    def info(self, camera: str) -> ModelInfo:
        """Return what the model says about itself, with the limit in force at a camera."""
        with self._lock:
            info, override = self._scorers.at(camera).info, self._overrides.get(camera)
        if override is None:
            return info
        rule = f"set by {override.who}"
        return replace(info, threshold=override.threshold, threshold_rule=rule)

    def set_override(self, camera: str, override: Override | None) -> float:
        """Set the limit of one camera, or with None give it back that of the model.

        Returns:
            The limit that was in force before.

        Raises:
            ConfigError: the limit is not a finite number.
        """
        if override is not None and not math.isfinite(override.threshold):
            raise ConfigError(f"expected a finite number as threshold, got {override.threshold}")
        with self._lock:
            before = self._overrides.get(camera)
            others = {name: item for name, item in self._overrides.items() if name != camera}
            self._overrides = others if override is None else {**others, camera: override}
            return self._scorers.at(camera).threshold if before is None else before.threshold

    def exchange(
        self,
        scorer: Scorer,
        content: str,
        calibrations: Mapping[str, DeviceCalibration] = NO_CALIBRATIONS,
        threshold: float | None = None,
    ) -> None:
        """Score with another model from the next batch on; the limits set by people stay.

        Raises:
            EdgeAdError: it cannot score the last frame; the old one goes on.
        """
        scorers = _Scorers(scorer, calibrations, threshold)
        frame = self._last_frame
        if frame is None:
            frame = np.zeros((*scorer.info.input_size, 3), dtype=np.uint8)
        scorer.score_prepared([_prepare(scorer, frame).frame])
        with self._lock:
            self._scorers, self._content = scorers, content

    def set_limits(
        self, calibrations: Mapping[str, DeviceCalibration], threshold: float | None
    ) -> dict[str, tuple[float, float]]:
        """Give the running model other limits; those set by people stay.

        Returns:
            What has changed: old and new limit by camera, as in the constructor's `calibrations`;
            under the empty name that of all other cameras.

        Raises:
            ConfigError: the threshold is not a finite number.
        """
        with self._lock:
            before = self._scorers
            after = self._scorers = _Scorers(before.model, calibrations, threshold)
        names = {ANY_CAMERA, *before.calibrated, *after.calibrated}
        pairs = {name: (before.at(name).threshold, after.at(name).threshold) for name in names}
        return {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}

    def prepare(self, frame: Frame) -> Prepared:
        """Bring a frame to the size of the model's input: work that a reader does ahead.

        Raises:
            DataError: it is not uint8, H x W x 3.
        """
        return _prepare(self.scorer, frame)

    def score(self, batch: Sequence[CapturedFrame]) -> list[Result]:
        """Score frames in one inference, each judged by the limit of its camera.

        Raises:
            DataError: one of them cannot be scored.
            DeviceError: the device failed.
        """
        with self._lock:
            scorers, overrides = self._scorers, self._overrides
        scorer = scorers.model
        prepared = [_prepared(scorer, captured) for captured in batch]
        longest = max(item.milliseconds for item in prepared)
        results = scorer.score_prepared(
            [item.frame for item in prepared],
            prepared_ms=longest,
            frame_sizes=[captured.frame.shape[:2] for captured in batch],
        )
        self._last_frame = batch[-1].frame
        return [
            _judged(result, scorers, captured.camera, overrides.get(captured.camera))
            for captured, result in zip(batch, results, strict=True)
        ]

    def gains_by_batching(self, size: int) -> bool:
        """Measure whether this many frames are scored sooner together than one after the other.

        A device that cannot run such a batch, for its memory perhaps, gains nothing. On a GPU it
        never pays: cuDNN chooses its convolutions again for each batch of another size than the
        last one, which took 3 seconds on an H100, and the number of waiting frames keeps changing.
        """
        scorer = self.scorer
        if scorer.provider != CPU:
            return False
        height, width = scorer.info.input_size
        frames = [np.zeros((height, width, 3), dtype=np.uint8)] * size
        together, alone = [], []
        for _ in range(_TRIALS):
            started = perf_counter()
            try:
                scorer.score_prepared(frames)
            except EdgeAdError:
                return False
            half = perf_counter()
            for frame in frames:
                scorer.score_prepared([frame])
            together.append(half - started)
            alone.append(perf_counter() - half)
        return min(together) < _GAIN * min(alone)


class _Scorers:
    """A model, and the scorer that judges at each camera."""

    def __init__(
        self,
        model: Scorer,
        calibrations: Mapping[str, DeviceCalibration],
        threshold: float | None,
    ) -> None:
        scorers = {name: model.with_calibration(item) for name, item in calibrations.items()}
        scorers.setdefault(ANY_CAMERA, model)
        if threshold is not None:
            scorers = {name: scorer.with_threshold(threshold) for name, scorer in scorers.items()}
        self.model = model
        self.calibrated = scorers

    @property
    def default(self) -> Scorer:
        return self.calibrated[ANY_CAMERA]

    def at(self, camera: str) -> Scorer:
        return self.calibrated.get(camera, self.default)


def _prepared(scorer: Scorer, captured: CapturedFrame) -> Prepared:
    """Take the reader's work, unless the model was exchanged since for one of another input."""
    made = captured.prepared
    if made is not None and made.preprocessing == scorer.preprocessing:
        return made
    return _prepare(scorer, captured.frame)


def _prepare(scorer: Scorer, frame: Frame) -> Prepared:
    started = perf_counter()
    made = scorer.prepare(frame)
    milliseconds = (perf_counter() - started) * 1000
    return Prepared(frame=made, preprocessing=scorer.preprocessing, milliseconds=milliseconds)


def _judged(result: Result, scorers: _Scorers, camera: str, override: Override | None) -> Result:
    """Judge what the model itself has judged already by the limits of a camera."""
    scorer = scorers.at(camera)
    if scorer is not scorers.model:
        result = scorer.judged(result)
    if override is None:
        return result
    anomalous = result.score >= override.threshold
    return replace(result, threshold=override.threshold, anomalous=anomalous)
