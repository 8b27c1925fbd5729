"""The one contract of all detectors: fit, forward, predict, evaluate, save, load."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edge_ad.backbones import create_backbone, feature_maps
from edge_ad.data import Dataset, choose_input_size
from edge_ad.evaluate import Evaluation, Evaluator
from edge_ad.models.smoothing import Smoothing
from edge_ad_runtime.errors import DataError, DeviceError, EdgeAdError, NotFittedError
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.image import Frame, Preprocessing

TENSOR_FILE = "detector.safetensors"
JSON_FILE = "detector.json"
BATCH_SIZE = 4
"""Small, so that the feature maps of a batch stay in the cache: on a CPU twice as fast as 16."""

SelfDetector = TypeVar("SelfDetector", bound="Detector")


@dataclass(frozen=True)
class Prediction:
    """Score of one frame, and its anomaly map (h, w) at input size, float32; both unbounded."""

    score: float
    anomaly_map: NDArray[np.float32]


class Detector(nn.Module, ABC):
    """A frozen backbone and what was learnt from good parts.

    `forward` takes what the exported file takes, so the two cannot drift apart.
    """

    method: ClassVar[str]
    smoothing: Smoothing

    def __init__(
        self,
        *,
        backbone: str,
        layers: Sequence[str] | None,
        weights: str,
        input_size: tuple[int, int] | None,
        resize: int | None,
        device: str,
        seed: int,
        sigma: float,
        grid_stride: int,
    ) -> None:
        """Build the backbone; nothing is learnt yet.

        Args:
            backbone: name as in `edge_ad.backbones`.
            layers: names of the feature maps; None: by `default_strides`.
            weights: `pretrained`, `none` (tests only) or the path of a state dict.
            input_size: (height, width), multiples of 32; None: chosen from the pictures at `fit`.
            resize: shorter side before a centre crop of `input_size`; None: the whole frame.
            device: `auto`, `cpu` or `cuda`.
            seed: for everything that is drawn.
            sigma: Gaussian blur of the map in input pixels; 0: none.
            grid_stride: input pixels between two patches.
        """
        super().__init__()
        if sigma < 0:
            raise EdgeAdError(f"expected a sigma of 0 or more input pixels, got {sigma}")
        if layers is None:
            layers = _layers_of_strides(backbone, self.default_strides())
        self.backbone = create_backbone(backbone, layers=layers, weights=weights)
        self.seed = seed
        self.sigma = sigma
        self.grid_stride = _check_grid_stride(grid_stride)
        self.n_channels = sum(layer.channels for layer in self.backbone.layers)
        self._resize = resize
        self._preprocessing: Preprocessing | None = None
        self.device = _torch_device(device)
        if input_size is not None:
            self._set_input_size(input_size)

    @classmethod
    @abstractmethod
    def default_strides(cls) -> tuple[int, ...]:
        """Strides of the feature maps that are used unless `layers` says otherwise."""

    @abstractmethod
    def fit_features(self, batches: Iterator[Tensor], n_frames: int) -> None:
        """Learn from batches of frames (n, h, w, 3), uint8, BGR, `n_frames` in all, in one pass."""

    @abstractmethod
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames (N, h, w, 3), uint8, BGR, at input size.

        Returns:
            Scores (N,) and anomaly maps (N, h, w), float32, both in the method's unit of distance.
        """

    def options(self) -> dict[str, Any]:
        """Return the constructor arguments that rebuild this detector, as JSON values."""
        return {
            "backbone": self.backbone.name,
            "layers": [layer.name for layer in self.backbone.layers],
            "input_size": list(self.preprocessing.input_size),
            "resize": self._resize,
            "seed": self.seed,
            "sigma": self.sigma,
            "grid_stride": self.grid_stride,
        }

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
        return height // self.grid_stride, width // self.grid_stride

    def fit(self: SelfDetector, dataset: Dataset) -> SelfDetector:
        """Learn from pictures of good parts, in one pass.

        Raises:
            DataError: no pictures, or unreadable ones.
        """
        if len(dataset) == 0:
            raise DataError("expected pictures of good parts to fit, got none")
        if self._preprocessing is None:
            self._set_input_size(choose_input_size(dataset))
        self.to(self.device)
        with torch.inference_mode():
            self.fit_features(self._frames(dataset, f"{self.method} fit"), len(dataset))
        return self

    def predict(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Score frames of any size.

        Raises:
            NotFittedError: `fit` has not run.
        """
        resized = np.stack([self.preprocessing.apply(frame) for frame in frames])
        return self._predict_resized(resized)

    def evaluate(self, dataset: Dataset, description: str = "evaluate") -> Evaluation:
        """Score all samples and compute image and, where there are masks, pixel metrics."""
        evaluator = Evaluator()
        for sample, prediction in self.predictions(dataset, description):
            evaluator.add(
                sample, prediction.score, prediction.anomaly_map, preprocessing=self.preprocessing
            )
        return evaluator.result()

    def predictions(self, dataset: Dataset, description: str) -> Iterator[tuple[Any, Prediction]]:
        """Score all readable samples in order, with a progress bar: (sample, prediction)."""
        batches = dataset.batches(
            self.preprocessing, batch_size=BATCH_SIZE, description=description
        )
        for samples, frames in batches:
            yield from zip(samples, self._predict_resized(frames), strict=True)

    def save(self, folder: Path | str) -> None:
        """Write `detector.safetensors` and `detector.json`, each at once and complete."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        temporary = folder / f".{TENSOR_FILE}.tmp"
        save_file(state, temporary)
        temporary.chmod(0o644)  # safetensors leaves it to its owner alone
        digest = sha256_of(temporary)
        os.replace(temporary, folder / TENSOR_FILE)
        document = {
            "format_version": 1,
            "method": self.method,
            "options": self.options(),
            "sha256": digest,
        }
        write_whole(folder / JSON_FILE, json.dumps(document, indent=2).encode())

    def restore(self, path: Path) -> None:
        """Take over the tensors of a file that `save` wrote."""
        state = load_file(path)
        for name, _ in list(self.named_buffers(recurse=False)):
            if name in state:
                setattr(self, name, torch.empty_like(state[name]))
        self.load_state_dict(state)
        self.to(self.device)

    def _frames(self, dataset: Dataset, description: str) -> Iterator[Tensor]:
        batches = dataset.batches(
            self.preprocessing, batch_size=BATCH_SIZE, description=description
        )
        for _, frames in batches:
            yield torch.from_numpy(frames).to(self.device)

    def _predict_resized(self, frames: NDArray[np.uint8]) -> list[Prediction]:
        if any(buffer.numel() == 0 for buffer in self.buffers(recurse=False)):
            raise NotFittedError("the detector has learnt nothing yet: fit or load it first")
        with torch.inference_mode():
            scores, maps = self(torch.from_numpy(frames).to(self.device))
        return [
            Prediction(float(score), anomaly_map)
            for score, anomaly_map in zip(scores.cpu(), maps.cpu().numpy(), strict=True)
        ]

    def _set_input_size(self, input_size: tuple[int, int]) -> None:
        if any(side < 32 or side % 32 for side in input_size):
            raise EdgeAdError(
                "expected an input size of multiples of 32 pixels, "
                f"got {input_size[0]}x{input_size[1]}: round each side to a multiple of 32"
            )
        self._preprocessing = Preprocessing(input_size=input_size, resize=self._resize)
        self.smoothing = Smoothing(self.grid, input_size, self.sigma)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _layers_of_strides(backbone: str, strides: Sequence[int]) -> list[str]:
    """Name the deepest feature map of each stride."""
    names = {item.stride: item.name for item in feature_maps(backbone)}
    missing = [stride for stride in strides if stride not in names]
    if missing:
        raise EdgeAdError(
            f"the backbone {backbone} has no feature map of stride {missing[0]}, "
            f"only of {sorted(names)}: choose --layers by name"
        )
    return [names[stride] for stride in strides]


def _check_grid_stride(grid_stride: int) -> int:
    if grid_stride not in (4, 8, 16, 32):
        raise EdgeAdError(f"expected a grid stride of 4, 8, 16 or 32 pixels, got {grid_stride}")
    return grid_stride


def _torch_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu` or `cuda`; an explicit `cuda` never falls back."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "expected a CUDA device for --device cuda, PyTorch finds none: "
            "use --device cpu, or install the driver and a CUDA build of PyTorch"
        )
    return torch.device(name)
