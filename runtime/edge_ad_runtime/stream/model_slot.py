"""What scores at the cameras of one model: the model file, and the limit of each camera."""

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

import numpy as np

from edge_ad_runtime.cameras import CapturedFrame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.errors import ConfigError, EdgeAdError
from edge_ad_runtime.events import Event
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.info import ModelInfo
from edge_ad_runtime.model.result import Result
from edge_ad_runtime.model.scorer import Scorer

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

    def __init__(self, scorer: Scorer, *, content: str = "") -> None:
        """Score with this model, at its own limit.

        Args:
            scorer: the model.
            content: sha256 of the file that it was read from.
        """
        self._lock = threading.Lock()
        self._scorer = scorer
        self._content = content
        self._overrides: Mapping[str, Override] = {}
        self._last_frame: Frame | None = None

    @property
    def scorer(self) -> Scorer:
        """The model in use, with the limit of the cameras at which nobody has set another."""
        with self._lock:
            return self._scorer

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
            return self._scorer.threshold if override is None else override.threshold

    def info(self, camera: str) -> ModelInfo:
        """Return what the model says about itself, with the limit in force at a camera."""
        with self._lock:
            info, override = self._scorer.info, self._overrides.get(camera)
        if override is None:
            return info
        rule = f"set by {override.who}"
        return replace(info, threshold=override.threshold, threshold_rule=rule)

    def set_override(self, camera: str, override: Override | None) -> float:
        """Set the limit of one camera, or with None give it back the model's own.

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
            return self._scorer.threshold if before is None else before.threshold

    def exchange(self, scorer: Scorer, content: str) -> None:
        """Score with another model from the next batch on; the limits set by people stay.

        Raises:
            EdgeAdError: it cannot score the last frame; the old one goes on.
        """
        frame = self._last_frame
        if frame is None:
            frame = np.zeros((*scorer.info.input_size, 3), dtype=np.uint8)
        scorer.score_prepared([_prepare(scorer, frame).frame])
        with self._lock:
            self._scorer, self._content = scorer, content

    def set_default(self, threshold: float) -> None:
        """Set the limit of the cameras at which nobody has set another.

        Raises:
            DataError: it is not a finite number.
        """
        with self._lock:
            self._scorer = self._scorer.with_threshold(threshold)

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
            scorer, overrides = self._scorer, self._overrides
        prepared = [_prepared(scorer, captured) for captured in batch]
        longest = max(item.milliseconds for item in prepared)
        results = scorer.score_prepared(
            [item.frame for item in prepared],
            prepared_ms=longest,
            frame_sizes=[captured.frame.shape[:2] for captured in batch],
        )
        self._last_frame = batch[-1].frame
        return [
            _judged(result, overrides.get(captured.camera))
            for captured, result in zip(batch, results, strict=True)
        ]

    def gains_by_batching(self, size: int) -> bool:
        """Measure whether so many frames are scored sooner together than one after the other."""
        scorer = self.scorer
        height, width = scorer.info.input_size
        frames = [np.zeros((height, width, 3), dtype=np.uint8)] * size
        together, alone = [], []
        for _ in range(_TRIALS):
            started = perf_counter()
            scorer.score_prepared(frames)
            half = perf_counter()
            for frame in frames:
                scorer.score_prepared([frame])
            together.append(half - started)
            alone.append(perf_counter() - half)
        return min(together) < _GAIN * min(alone)


class ModelFile:
    """A model file of a stream, and the slot in which it runs.

    Attributes:
        path: of the file.
        slot: what scores.
    """

    def __init__(
        self, path: Path, *, device: str, threads: int | None, threshold: float | None
    ) -> None:
        """Load the model.

        Args:
            path: an `.onnx` file written by `edge-ad export`.
            device: as for `Scorer`.
            threads: as for `Scorer`.
            threshold: in place of the model's own; None: that one.

        Raises:
            ModelFileError, DeviceError: it cannot be used.
            DataError: the threshold is not a finite number.
        """
        self.path = path
        self._device = device
        self._threads = threads
        content = _content(path)
        self.slot = ModelSlot(self._load(threshold), content=content)

    def reload(self, threshold: float | None) -> Event | None:
        """Take over what has changed: the file, or the limit in the configuration.

        Returns:
            What to tell of it: the model was replaced, its limit was changed, or it was refused and
            the old one goes on. None: nothing has changed.
        """
        try:
            return self._reload(threshold)
        except EdgeAdError as error:
            message = f"{self.path} does not replace the running model: {error}"
            return Event(kind="model refused", message=message)

    def _reload(self, threshold: float | None) -> Event | None:
        content, running = _content(self.path), self.slot.scorer
        if content == self.slot.content:
            wanted = running.model_threshold if threshold is None else threshold
            if wanted == running.threshold:
                return None
            self.slot.set_default(wanted)
            return Event(
                kind="threshold changed",
                message=f"{self.path}: the limit is now {wanted:.4g} instead of "
                f"{running.threshold:.4g}, by the configuration",
                details={"old": running.threshold, "new": wanted, "who": "the configuration"},
            )
        scorer = self._load(threshold)
        self.slot.exchange(scorer, content)
        return Event(
            kind="model replaced",
            message=f"{self.path} now scores: {scorer.info.method} on {scorer.info.category}, "
            f"limit {scorer.threshold:.4g}",
        )

    def _load(self, threshold: float | None) -> Scorer:
        return Scorer(self.path, device=self._device, threads=self._threads, threshold=threshold)


def _content(path: Path) -> str:
    """Return the sha256 of a file, or nothing where it cannot be read: loading says why."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


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


def _judged(result: Result, override: Override | None) -> Result:
    if override is None:
        return result
    anomalous = result.score >= override.threshold
    return replace(result, threshold=override.threshold, anomalous=anomalous)
