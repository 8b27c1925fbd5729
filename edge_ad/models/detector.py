"""The one contract of all detectors: fit, forward, predict, evaluate, save, load."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.backbones import create_backbone, layers_of_strides
from edge_ad.config import DetectorConfig
from edge_ad.data import (
    Dataset,
    Pictures,
    as_dataset,
    choose_input_size,
    good_pictures,
    labelled_pictures,
)
from edge_ad.evaluate import Evaluation, Evaluator
from edge_ad.models.grid import Smoothing
from edge_ad.models.leave_one_out import FEWEST, GoodScores, LeftOut
from edge_ad.models.machine import full_precision, telling_when_memory_ends, torch_device
from edge_ad.models.saved import write_detector
from edge_ad_runtime.errors import DataError, MissingExtraError, NotFittedError
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.image import Frame, Preprocessing
from edge_ad_runtime.model.info import Limits
from edge_ad_runtime.model.picture_file import read_frame
from edge_ad_runtime.model.result import RegionFinder, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edge_ad_export import Exported, ExportOptions

MOST_KEPT = 64
"""Fitted pictures that a detector knows of, to compare an exported file with itself."""

BATCH_SIZE = 4
"""Small, so that the feature maps of a batch stay in the cache: on a CPU twice as fast as 16."""

SelfDetector = TypeVar("SelfDetector", bound="Detector")


class Prediction(NamedTuple):
    """Score of one frame, and its anomaly map (h, w) at input size, float32; both unbounded."""

    score: float
    anomaly_map: NDArray[np.float32]

    def __repr__(self) -> str:
        """Show the shape of the map instead of its values."""
        height, width = self.anomaly_map.shape
        return f"Prediction(score={self.score:.4g}, anomaly_map={height}x{width})"


class Detector(nn.Module, ABC):
    """A frozen backbone and what was learnt from good parts.

    `forward` takes what the exported file takes, so the two cannot drift apart.
    """

    method: ClassVar[str]
    config: DetectorConfig
    smoothing: Smoothing
    good: GoodScores | None
    """Leave-one-out scores of the fitted pictures; None before `fit`, and of a loaded detector."""
    limits: Limits | None
    """Decision limits; None before `fit`, and where fewer than 3 pictures were fitted."""
    calibration: Calibration | None
    """Scores of good parts and the promise that the limits follow from; None as `limits`."""
    fitted: Dataset | None
    """The fitted pictures, or 64 of them, evenly spaced; None of a loaded detector."""
    run: Path | None
    """The run that the detector was loaded from."""
    has_weights: bool
    """Whether the backbone has the weights that it was built for."""

    def __init__(self, config: DetectorConfig) -> None:
        """Build the backbone; nothing is learnt yet.

        Args:
            config: what was asked for; `self.config` holds what came of it, such as the names of
                the layers.

        Raises:
            EdgeAdError: the backbone, its layers or its weights cannot be had.
            DeviceError: the device is not there.
        """
        super().__init__()
        self.good = self.limits = self.calibration = self.fitted = self.run = None
        layers = config.layers or layers_of_strides(config.backbone, self.default_strides())
        self.config = replace(config, layers=tuple(layers))
        self.backbone = create_backbone(config.backbone, layers=layers, weights=config.weights)
        self.n_channels = sum(layer.channels for layer in self.backbone.layers)
        self._preprocessing: Preprocessing | None = None
        self.has_weights = config.weights is not None
        self.device = torch_device(config.device)
        if config.input_size is not None:
            self._set_input_size(config.input_size)

    @classmethod
    @abstractmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Strides of the feature maps that are used unless `layers` says otherwise."""

    @property
    def turns(self) -> int:
        """In how many directions each picture of the fit is learnt."""
        return 1

    def prepare(self, dataset: Dataset) -> None:
        """Settle what depends on the pictures and not on the fit; nothing by default."""

    @abstractmethod
    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> LeftOut:
        """Learn from batches of frames (n, h, w, 3), uint8, BGR, in one pass.

        Args:
            batches: the frames.
            n_frames: how many there are in all, unreadable pictures included.

        Returns:
            How far each picture lies from what was learnt from the others.
        """

    @abstractmethod
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames (N, h, w, 3), uint8, BGR, at input size.

        Returns:
            Scores (N,) and anomaly maps (N, h, w), float32, both in the method's unit of distance.
        """

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames become the input.

        Raises:
            NotFittedError: no input size was given and `fit` has not run.
        """
        if self._preprocessing is None:
            raise NotFittedError("the detector has no input size yet: fit or load it first")
        return self._preprocessing

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of patches."""
        height, width = self.preprocessing.input_size
        stride = self.config.grid_stride
        return height // stride, width // stride

    def fit(self: SelfDetector, pictures: Pictures) -> SelfDetector:
        """Learn from pictures of good parts, in one pass, and set the decision limit.

        Afterwards `good` holds what each of them scores as a new picture, and `threshold` is the
        limit that follows from these scores. With fewer than 3 pictures there is none.

        Args:
            pictures: a folder, paths, frames (uint8, H x W x 3, BGR) in a list or an array, or a
                data loader, see `edge_ad.data.as_dataset`. Of a folder in MVTec layout only
                `train/good` counts.

        Raises:
            DataError: no pictures, unreadable ones, or a folder of which it is not clear what is
                good.
            NotFittedError: the backbone was built for weights that never came.
        """
        if not self.has_weights:
            raise NotFittedError(
                "the backbone has no weights: give `weights` as pretrained or a file"
            )
        dataset = as_dataset(pictures, good_pictures)
        if len(dataset) == 0:
            raise DataError("expected pictures of good parts to fit, got none")
        if self._preprocessing is None:
            self._set_input_size(choose_input_size(dataset, area=self.config.size**2))
        self.to(self.device)
        limited = telling_when_memory_ends(self.preprocessing.input_size, self.device)
        with limited, full_precision(), torch.inference_mode():
            self.prepare(dataset)
            left_out = self.fit_features(self._frames(dataset, f"{self.method} fit"), len(dataset))
            self.good = self.good_scores(left_out)
        self.fitted, self.run = dataset[:: math.ceil(len(dataset) / MOST_KEPT)], None
        self.calibration = self.limits = None
        if self.good is not None:
            self.calibration = self.good.calibrate()
            self.limits = self.good.limits(self.calibration)
        return self

    @property
    def threshold(self) -> float:
        """The decision limit: a frame with this score or a higher one is anomalous.

        Raises:
            NotFittedError: nothing was fitted, fewer than 3 pictures, or by an early version.
        """
        return self._known_limits().threshold

    def set_false_alarm_rate(self, rate: float) -> float:
        """Move the decision limit to another false-alarm rate; nothing is fitted again.

        Args:
            rate: the share of good parts that may be called anomalous, such as 0.001.

        Returns:
            The new limit, also in `threshold`.

        Raises:
            NotFittedError: there is no limit yet.
            ConfigError: the rate is out of range.
        """
        limits = self._known_limits()
        if self.calibration is None:
            raise NotFittedError("the detector keeps no scores of good parts: fit it again")
        self.calibration = self.calibration.with_rate(rate)
        self.limits = limits.promised_by(self.calibration)
        return self.limits.threshold

    def good_scores(self, left_out: LeftOut) -> GoodScores | None:
        """Smooth the distances of left-out pictures; None: too few to leave one out."""
        if len(left_out.distance) < FEWEST:
            return None
        return GoodScores.from_left_out(left_out, self.smooth)

    def smooth(self, distance: Tensor) -> Tensor:
        """Turn distances (N, patches) into anomaly maps (N, h, w)."""
        anomaly_map: Tensor = self.smoothing(distance.reshape(-1, *self.grid))
        return anomaly_map

    def map_of(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the anomaly map (h, w) of the distances (patches,) of one picture."""
        with torch.inference_mode():
            return self.smooth(torch.from_numpy(distance)[None].to(self.device))[0].cpu().numpy()

    def predict(self, pictures: Pictures) -> list[Prediction]:
        """Score pictures of any size, in order.

        Args:
            pictures: frames (uint8, H x W x 3, BGR), or whatever else `as_dataset` takes.

        Raises:
            DataError: a frame of another kind, or an unreadable picture.
            NotFittedError: `fit` has not run.
        """
        if isinstance(pictures, Sized) and len(pictures) == 0:
            return []
        return [found for _, found in self.predictions(as_dataset(pictures), None)]

    def plot(self, picture: Frame | Path | str) -> "Figure":
        """Score a picture, and return frame, overlay and anomaly map as a matplotlib figure.

        Args:
            picture: a frame (uint8, H x W x 3, BGR), or the path of a picture.

        Raises:
            DataError: it cannot be read or scored.
            NotFittedError: nothing was fitted, so that there is no limit.
            MissingExtraError: matplotlib is not installed.
        """
        limits = self._known_limits()
        frame = read_frame(picture) if isinstance(picture, str | Path) else picture
        (found,) = self.predict([frame])
        finder = RegionFinder(
            map_threshold=limits.map_threshold,
            preprocessing=self.preprocessing,
            calibration=self.calibration,
        )
        result = Result.of(*found, threshold=limits.threshold, finder=finder)
        return result.plot(frame)

    def evaluate(self, pictures: Pictures, description: str = "evaluate") -> Evaluation:
        """Score all samples and compute image and, where there are masks, pixel metrics.

        Args:
            pictures: as for `predict`. Labels come from a `Dataset`, or from the names of the
                folders in `test` of a folder in MVTec layout; anything else counts as good.
            description: title of the progress bar.

        Raises:
            DataError, NotFittedError: as `predict`.
        """
        evaluator = Evaluator()
        dataset = as_dataset(pictures, labelled_pictures)
        for sample, prediction in self.predictions(dataset, description):
            evaluator.add(
                sample, prediction.score, prediction.anomaly_map, preprocessing=self.preprocessing
            )
        return evaluator.result()

    def predictions(
        self, dataset: Dataset, description: str | None
    ) -> Iterator[tuple[Any, Prediction]]:
        """Score all readable samples in order: (sample, prediction); `description` is a bar's."""
        batches = dataset.batches(
            self.preprocessing, batch_size=BATCH_SIZE, description=description
        )
        for samples, frames in batches:
            yield from zip(samples, self._predict_resized(frames), strict=True)

    def save(self, folder: Path | str) -> None:
        """Write `detector.safetensors` and `detector.json`, each at once and complete."""
        write_detector(self, Path(folder))

    def export(
        self,
        path: Path | str,
        *,
        category: str = "",
        pictures: Pictures | None = None,
        options: "ExportOptions | None" = None,
    ) -> "Exported":
        """Write one self-contained ONNX file, compared with this detector before it is in place.

        Args:
            path: of the file, such as `cable-padim.onnx`.
            category: the product, as the file names it; empty: the name of the file without the
                method, or what the run says that the detector was loaded from.
            pictures: what the file is compared on, as for `fit`; None: fitted pictures, or those of
                the run.
            options: target, precision and what to do when the comparison fails.

        Raises:
            NotFittedError: nothing was fitted.
            DataError: there are no pictures to compare the file on.
            ExportError: the graph cannot be built or written, or scores differently.
            MissingExtraError: onnx or ONNX Runtime is not installed.
        """
        # The one arrow that points up, and only when it is asked for; pyproject.toml names it.
        try:
            from edge_ad_export import export_detector
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"exporting needs the package '{error.name}', which is not installed: "
                "pip install 'edge-ad[train,cpu]'"
            ) from error

        return export_detector(self, path, category=category, pictures=pictures, options=options)

    def __repr__(self) -> str:
        """Say in a few rows what was asked for and what was learnt, not every layer."""
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self.config).items())
        if self.limits is not None:
            state = f"threshold {self.limits.threshold:.4g}, {self.limits.threshold_rule}"
        else:
            state = "not fitted" if self._has_learnt_nothing() else "fitted, without a limit"
        return f"{type(self).__name__}({options})\n<{state}>"

    def _known_limits(self) -> Limits:
        if self.limits is None:
            raise NotFittedError(
                "the detector has no decision limit: fit it on 3 pictures of good parts or more"
            )
        return self.limits

    def _has_learnt_nothing(self) -> bool:
        return any(buffer.numel() == 0 for buffer in self.buffers(recurse=False))

    def _frames(self, dataset: Dataset, description: str) -> Iterator[Tensor]:
        batches = dataset.batches(
            self.preprocessing, batch_size=BATCH_SIZE, description=description
        )
        for _, frames in batches:
            yield torch.from_numpy(frames).to(self.device)

    def _predict_resized(self, frames: NDArray[np.uint8]) -> list[Prediction]:
        if self._has_learnt_nothing():
            raise NotFittedError("the detector has learnt nothing yet: fit or load it first")
        limited = telling_when_memory_ends(self.preprocessing.input_size, self.device)
        with limited, full_precision(), torch.inference_mode():
            scores, maps = self(torch.from_numpy(frames).to(self.device))
        return [
            Prediction(float(score), anomaly_map)
            for score, anomaly_map in zip(scores.cpu(), maps.cpu().numpy(), strict=True)
        ]

    def _set_input_size(self, input_size: tuple[int, int]) -> None:
        sigma = self.config.sigma
        if sigma is None:
            sigma = math.sqrt(input_size[0] * input_size[1]) / 64
        self.config = replace(self.config, input_size=input_size, sigma=sigma)
        self._preprocessing = Preprocessing(input_size=input_size, resize=self.config.resize)
        self.smoothing = Smoothing(self.grid, input_size, sigma)
