"""Score frames with a model file."""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime.errors import ConfigError, DataError, DeviceError, ModelFileError
from edge_ad_runtime.model.accelerator import CPU, CUDA, AcceleratorConfig
from edge_ad_runtime.model.device_calibration import DeviceCalibration
from edge_ad_runtime.model.golden import GOLDEN_KEY, Golden
from edge_ad_runtime.model.image import Frame, check_frame
from edge_ad_runtime.model.info import ModelInfo, verify
from edge_ad_runtime.model.location import installed
from edge_ad_runtime.model.result import RegionFinder, Result
from edge_ad_runtime.model.session import (
    OUTPUTS,
    create_session,
    first_line,
    is_fixed_to_one,
    native_errors,
    silent_default_log,
)
from edge_ad_runtime.model.signature import RequiredSignature

MOST_AT_ONCE = 16
"""Frames of one inference. More gain nothing, and 200 of them would take 3 GB."""

MAX_BYTES = 2**31
"""Of a model file: it is one protobuf, and that cannot be larger."""


class Scorer:
    """A model file, ready to score frames; one instance may be used by several threads.

    Another process needs one of its own: it cannot be pickled.

    Attributes:
        info: what the model file says about itself.
        provider: the ONNX Runtime execution provider that runs it, such as `CPUExecutionProvider`.
        threshold: the decision limit that is applied.
        model_threshold: the one in the model file.
        preprocessing: how a frame becomes the model's input.
        content: sha256 of the bytes of the file that run, in hex.
        signed: what the valid signature of these bytes says; None: none was asked for.
        golden: frames with the scores that they must have; None: the file holds none.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        device: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
        min_region_area: float = 0.0,
        required: RequiredSignature | None = None,
        accelerator: AcceleratorConfig = AcceleratorConfig(),
    ) -> None:
        """Read the file, once, and start a session on the device.

        Args:
            path: an `.onnx` file written by `edge-ad export`.
            device: `auto` (CUDA where it works and the file was not exported for CPUs, else the
                CPU), `cpu`, `cuda` or `tensorrt`.
            threads: CPU threads for one inference; None: one for each physical core.
            threshold: decision limit in place of the model's own; a finite number.
            min_region_area: share of the picture, 0..1, from which a region is reported.
            required: the signature without which the file is refused; None: none is needed.
            accelerator: how a GPU is used.

        Raises:
            ModelFileError: the file is missing, damaged, not ours, of a newer format, or not signed
                as required.
            DeviceError: the device cannot run the model here, or a GPU does not give the golden
                frames their scores; it never becomes the CPU silently.
            MissingExtraError: ONNX Runtime is not installed.
            ConfigError: the threshold is not a finite number, or the area is not from 0 to below 1.
        """
        if threshold is not None:
            _check_threshold(threshold)
        if not 0 <= min_region_area < 1:
            raise ConfigError(
                "expected a smallest region from 0 to below 1, as a share of the picture, "
                f"got {min_region_area}"
            )
        # Once: `edge-ad install` may lead the path elsewhere meanwhile.
        file = installed(Path(path))
        model = read_model(file)
        self.content = hashlib.sha256(model).hexdigest()
        try:
            self.signed = None if required is None else required.check(file, model)
            # First of all, so that nothing interprets damaged bytes.
            checksum = verify(model)
            self._session = create_session(model, device, threads, accelerator)
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.info = ModelInfo.from_metadata(metadata, checksum)
            golden = metadata.get(GOLDEN_KEY)
            self.golden = None if golden is None else Golden.from_metadata(golden)
            self._one_by_one = is_fixed_to_one(self._session, self.info)
        except ModelFileError as error:
            raise ModelFileError(f"cannot use the model file {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ModelFileError(
                f"cannot use the model file {path}: it is damaged, a name in it is not text: "
                "copy it again or export the run again"
            ) from error
        self.model_threshold = self.threshold = self.info.threshold
        if threshold is not None:
            self._set_threshold(threshold)
        self.provider = str(self._session.get_providers()[0])
        self.preprocessing = self.info.preprocessing
        self._min_region_area = min_region_area
        self._finder = self._make_finder()
        if self.provider != CPU and self.golden is not None:
            self._check_accelerator(self.golden)

    def _check_accelerator(self, golden: Golden) -> None:
        """Compare a GPU with the workstation, since its float16 or a faulty kernel may be far off.

        Raises:
            DeviceError: its scores differ.
        """
        try:
            golden.check(self)
        except ModelFileError as error:
            raise DeviceError(
                f"{self.provider} does not score as the workstation did ({error}), or use "
                "--device cpu"
            ) from error

    def __repr__(self) -> str:
        """Say in one row what is scored, and how."""
        height, width = self.info.input_size
        return (
            f"<Scorer {self.info.method} on {self.info.category}, input {height}x{width}, "
            f"threshold {self.threshold:.4g}, {self.provider}>"
        )

    def with_threshold(self, threshold: float) -> "Scorer":
        """Return a scorer of the same session with another decision limit.

        Raises:
            DataError: the threshold is not a finite number.
        """
        other = self._twin()
        other._set_threshold(threshold)
        return other

    def with_calibration(self, calibration: DeviceCalibration) -> "Scorer":
        """Return a scorer of the same session with the limits of a calibration on this device."""
        other = self._twin()
        other.info = calibration.applied_to(self.info)
        other.threshold = other.info.threshold
        other._finder = other._make_finder()
        return other

    def _twin(self) -> "Scorer":
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied, in words."""
        raise TypeError(
            "a Scorer holds a running session of ONNX Runtime and cannot be pickled or copied: "
            "make one in each process with Scorer(path), such as in the initializer of a pool"
        )

    def judged(self, result: Result) -> Result:
        """Return a result of the same model with the verdict that this scorer's limits give it."""
        return self._result(result.score, result.anomaly_map, result.latency_ms, result.frame_size)

    def _make_finder(self) -> RegionFinder:
        return RegionFinder(
            map_threshold=self.info.map_threshold,
            preprocessing=self.preprocessing,
            calibration=self.info.calibration,
            min_area=self._min_region_area,
        )

    def _set_threshold(self, threshold: float) -> None:
        _check_threshold(threshold)
        self.info = replace(self.info, threshold=threshold, threshold_rule="set by the user")
        self.threshold = threshold

    def score(self, frame: Frame) -> Result:
        """Score one frame: uint8, H x W x 3, BGR, of any size.

        Raises:
            DataError: the frame has another shape or type, or its score is not finite.
            DeviceError: the device failed.
        """
        return self.score_batch([frame])[0]

    def score_batch(self, frames: Iterable[Frame], *, fill_to: int = 1) -> list[Result]:
        """Score any number of frames, up to 16 in one go where the model file allows it.

        Args:
            frames: as in `score`: a list, an array of n x H x W x 3, or a generator, of which no
                more than 16 frames are held at a time. Their sizes may differ.
            fill_to: the size of a whole batch, where pictures come in several: on CUDA, a smaller
                last one takes as long as several whole ones unless it is filled up.

        Raises:
            DataError: as `score`, for the whole batch.
            DeviceError: the device failed.
        """
        if isinstance(frames, np.ndarray) and frames.ndim < 4:
            raise DataError("expected several frames, got a single array: give one frame to score")
        results: list[Result] = []
        rest = iter(frames)
        while batch := list(islice(rest, MOST_AT_ONCE)):
            started = perf_counter()
            prepared = [self.prepare(frame) for frame in batch]
            prepared_ms = (perf_counter() - started) * 1000 / len(batch)
            sizes = [_size(frame) for frame in batch]
            fill_to = max(fill_to, len(batch))
            results += self.score_prepared(
                prepared, prepared_ms=prepared_ms, frame_sizes=sizes, fill_to=fill_to
            )
        return results

    def prepare(self, frame: Frame) -> Frame:
        """Return the frame as the model sees it, (h, w, 3): work that another thread can take over.

        Raises:
            DataError: the frame is not uint8, H x W x 3.
        """
        check_frame(frame)
        return np.ascontiguousarray(self.preprocessing.apply(frame))

    def score_prepared(
        self,
        prepared: Sequence[Frame],
        *,
        prepared_ms: float = 0.0,
        frame_sizes: Sequence[tuple[int, int]] | None = None,
        fill_to: int = 1,
    ) -> list[Result]:
        """Score frames that went through `prepare`.

        Args:
            prepared: what `prepare` returned.
            prepared_ms: what that took for one frame; it is part of the result's latency.
            frame_sizes: (height, width) of each frame before `prepare`, in whose pixels the regions
                are given; None: those of the prepared frames.
            fill_to: as for `score_batch`.

        Raises:
            DataError: a score is not finite.
            DeviceError: the device failed.
        """
        shapes = {frame.shape for frame in prepared}
        sizes = frame_sizes or [_size(frame) for frame in prepared]
        step = 1 if self._one_by_one or len(shapes) > 1 else MOST_AT_ONCE
        # cuDNN chooses all convolutions again for a batch of another size than the last one, which
        # took 3 seconds on an H100: too long for the rest of a folder.
        least = min(step, max(len(prepared), fill_to)) if self.provider == CUDA else 1
        results = []
        for start in range(0, len(prepared), step):
            end = start + step
            results += self._run(prepared[start:end], least, prepared_ms, sizes[start:end])
        return results

    def _run(
        self,
        prepared: Sequence[Frame],
        least: int,
        prepared_ms: float,
        sizes: Sequence[tuple[int, int]],
    ) -> list[Result]:
        """Score frames in one inference, filled up to at least so many with copies of the last."""
        started = perf_counter()
        filled = [*prepared, *[prepared[-1]] * (least - len(prepared))]
        # A single frame is not copied again.
        batch = filled[0][np.newaxis] if len(filled) == 1 else np.stack(filled)
        scores, maps = (output[: len(prepared)] for output in self._infer(batch))
        latency = prepared_ms + (perf_counter() - started) * 1000 / len(prepared)
        if not np.isfinite(scores).all():
            raise DataError(
                f"expected a finite score, the model gave {scores.tolist()}: "
                "check the frame, and the model file with `edge-ad export`"
            )
        return [
            self._result(score, anomaly_map, latency, size)
            for score, anomaly_map, size in zip(scores.tolist(), maps, sizes, strict=True)
        ]

    def _result(
        self,
        score: float,
        anomaly_map: NDArray[np.float32],
        latency_ms: float,
        frame_size: tuple[int, int] | None,
    ) -> Result:
        return Result.of(
            score,
            anomaly_map,
            threshold=self.threshold,
            finder=self._finder,
            latency_ms=latency_ms,
            frame_size=frame_size,
        )

    def _infer(self, batch: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # On CUDA, any batch may be one for which cuDNN chooses.
        try:
            with silent_default_log() if self.provider == CUDA else contextlib.nullcontext():
                scores, maps = self._session.run(list(OUTPUTS), {"frame": batch})
        except native_errors() as error:
            raise DeviceError(
                f"{self.provider} failed on a batch of {len(batch)} ({first_line(error)}): "
                "try --device cpu, or a smaller batch"
            ) from error
        expected = (len(batch), *self.info.input_size)
        if scores.shape != expected[:1] or maps.shape != expected:
            raise DataError(
                f"expected {len(batch)} scores and maps of {self.info.input_size}, the model gave "
                f"{scores.shape} and {maps.shape}: export the run again"
            )
        return scores, maps


def _size(frame: Frame) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def _check_threshold(threshold: float) -> None:
    if not math.isfinite(threshold):
        raise ConfigError(f"expected a finite number as threshold, got {threshold}")


def read_model(path: Path) -> bytes:
    """Return the content of a model file; nothing in it is interpreted.

    Raises:
        ModelFileError: it is not a regular file, too large, or cannot be read.
    """
    expected = "give the path of an .onnx file written by `edge-ad export` that this user may read"
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ModelFileError(f"cannot read the model file {path}: it is {kind}: {expected}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelFileError(
                f"cannot use the model file {path}: it has {size / 2**30:.1f} GiB, "
                f"and a model file at most 2 GiB: {expected}"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"cannot read the model file {path}: {error.strerror}: {expected}"
        ) from error
    except ValueError as error:  # a NUL in the path
        raise ModelFileError(f"cannot read the model file {path!r}: {error}: {expected}") from error
