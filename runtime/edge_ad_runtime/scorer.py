"""Score frames with a model file."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import DataError, DeviceError, ModelFileError
from edge_ad_runtime.image import Frame
from edge_ad_runtime.info import ModelInfo
from edge_ad_runtime.result import Result
from edge_ad_runtime.session import create_session, first_line, run_errors

_OUTPUTS = ("score", "anomaly_map")


class Scorer:
    """A model file, ready to score frames; one instance may be used by several threads.

    Attributes:
        info: what the model file says about itself.
        provider: the ONNX Runtime execution provider that runs it, such as `CPUExecutionProvider`.
        threshold: the decision limit that is applied.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        device: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
    ) -> None:
        """Read the file, once, and start a session on the device.

        Args:
            path: an `.onnx` file written by `edge-ad export`.
            device: `auto` (CUDA where it works, else the CPU), `cpu`, `cuda` or `tensorrt`.
            threads: CPU threads for one inference; None: one for each physical core.
            threshold: decision limit in place of the model's own; a finite number.

        Raises:
            ModelFileError: the file is missing, damaged, not ours, or of a newer format.
            DeviceError: the device cannot run the model here; it never becomes the CPU silently.
            MissingExtraError: ONNX Runtime is not installed.
            DataError: the threshold is not a finite number.
        """
        if threshold is not None and not math.isfinite(threshold):
            raise DataError(f"expected a finite number as threshold, got {threshold}")
        model = _read(Path(path))
        try:
            self._session = create_session(model, device, threads)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.info = ModelInfo.from_metadata(metadata)
            self._one_by_one = _is_fixed_to_one(self._session, self.info)
        except ModelFileError as error:
            raise ModelFileError(f"cannot use the model file {path}: {error}") from error
        if threshold is not None:
            self.info = replace(self.info, threshold=threshold, threshold_rule="set by the user")
        self.threshold = self.info.threshold
        self.provider: str = self._session.get_providers()[0]
        self._preprocessing = self.info.preprocessing

    def score(self, frame: Frame) -> Result:
        """Score one frame: uint8, H x W x 3, BGR, of any size.

        Raises:
            DataError: the frame has another shape or type, or its score is not finite.
            DeviceError: the device failed.
        """
        return self.score_batch([frame])[0]

    def score_batch(self, frames: Sequence[Frame]) -> list[Result]:
        """Score any number of frames, in one go where the model file allows it.

        Args:
            frames: as in `score`; their sizes may differ.

        Raises:
            DataError: as `score`, for the whole batch.
            DeviceError: the device failed.
        """
        for frame in frames:
            _check_frame(frame)
        step = 1 if self._one_by_one else max(1, len(frames))
        results = []
        for start in range(0, len(frames), step):
            results += self._run(frames[start : start + step])
        return results

    def _run(self, frames: Sequence[Frame]) -> list[Result]:
        started = perf_counter()
        scores, maps = self._infer(self._prepare(frames))
        latency = (perf_counter() - started) * 1000 / len(frames)
        if not np.isfinite(scores).all():
            raise DataError(
                f"expected a finite score, the model gave {scores.tolist()}: "
                "check the frame, and the model file with `edge-ad export`"
            )
        return [
            Result(
                score=float(score),
                anomalous=bool(score >= self.threshold),
                threshold=self.threshold,
                anomaly_map=anomaly_map,
                latency_ms=latency,
            )
            for score, anomaly_map in zip(scores, maps, strict=True)
        ]

    def _prepare(self, frames: Sequence[Frame]) -> Frame:
        """Resize the frames: (N, h, w, 3). A single frame is not copied again."""
        if len(frames) == 1:
            return np.ascontiguousarray(self._preprocessing.apply(frames[0]))[np.newaxis]
        return np.stack([self._preprocessing.apply(frame) for frame in frames])

    def _infer(self, batch: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            scores, maps = self._session.run(_OUTPUTS, {"frame": batch})
        except run_errors() as error:
            raise DeviceError(
                f"{self.provider} failed on a batch of {len(batch)} ({first_line(error)}): "
                "try --device cpu, or a smaller batch"
            ) from error
        return scores, maps


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read the model file {path}: {error.strerror}: give the path of an .onnx file "
            "written by `edge-ad export`"
        ) from error


def _is_fixed_to_one(session: Any, info: ModelInfo) -> bool:
    """Check the graph's names, types and sizes; return whether it takes one frame at a time.

    Raises:
        ModelFileError: they are not those of format version 1.
    """
    inputs = {item.name: (item.type, item.shape) for item in session.get_inputs()}
    outputs = {item.name: item.type for item in session.get_outputs()}
    kind, shape = inputs.get("frame", ("nothing", [None]))
    if len(inputs) != 1 or kind != "tensor(uint8)" or list(shape[1:]) != [*info.input_size, 3]:
        raise ModelFileError(
            f"expected one input 'frame' of type uint8 and size N x {info.input_size[0]} x "
            f"{info.input_size[1]} x 3, found {_described(inputs)}: export the run again"
        )
    if any(outputs.get(name) != "tensor(float)" for name in _OUTPUTS):
        raise ModelFileError(
            f"expected the float outputs 'score' and 'anomaly_map', found {_described(outputs)}: "
            "export the run again"
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelFileError(
            f"expected a dynamic batch or one of 1, found {shape[0]}: export the run again"
        )
    return isinstance(shape[0], int)


def _described(items: dict[str, Any]) -> str:
    return ", ".join(f"'{name}' {kind}" for name, kind in items.items()) or "none"


def _check_frame(frame: object) -> None:
    """Refuse early what would be scored wrongly: floats, grey pictures, alpha channels.

    Raises:
        DataError: not uint8, H x W x 3.
    """
    if not isinstance(frame, np.ndarray):
        raise DataError(f"expected a frame as a numpy array, got {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        size = "x".join(str(length) for length in frame.shape)
        raise DataError(
            f"expected a frame as uint8 of H x W x 3 in BGR, got {frame.dtype} of {size}: "
            "convert it, for a grey frame with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
        )
