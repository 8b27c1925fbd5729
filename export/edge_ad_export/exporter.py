"""From a fitted detector to one ONNX file, proven equal on real pictures before it is in place."""

import logging
import os
import platform
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from edge_ad import __version__
from edge_ad.data import Dataset, Pictures, as_dataset
from edge_ad.models import Detector, load, read_detector
from edge_ad.run_metrics import RunMetrics
from edge_ad.runs import DETECTOR_FILE, Run, model_file, unchanged
from edge_ad_export.build import backbone_graph, build_graph, has_integer_form
from edge_ad_export.limits import with_own_limits, with_threshold
from edge_ad_export.parity import Parity, ProofError
from edge_ad_export.proof import ProofPictures, compare, golden_frames
from edge_ad_export.recipe import Recipe, choose_recipes
from edge_ad_runtime import ModelInfo, Scorer
from edge_ad_runtime.errors import ConfigError, DataError, ExportError, NotFittedError, counted
from edge_ad_runtime.files import remove_leftovers, temporary_folder, write_whole
from edge_ad_runtime.model.bench import backbone_file
from edge_ad_runtime.model.document import MAX_NUMBER
from edge_ad_runtime.model.golden import Golden
from edge_ad_runtime.model.image import Preprocessing
from edge_ad_runtime.model.info import Limits, stamp

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a run is exported.

    Attributes:
        target: one of `edge_ad_export.recipe.TARGETS`.
        precision: one of `PRECISIONS`; `auto`: the fastest of the target that passes its proof.
        bake_resize: the graph takes frames of any size and resizes them by itself.
        force: write a file that failed its proof all the same; `auto` is then the fastest.
        with_backbone: also write the bare backbone, so that `edge-ad bench` can compare.
        threshold: decision limit in the unit of the file's scores; None: that of the run.
        golden_frames: the file holds two pictures of the run, so that devices can check it.
    """

    target: str = "cpu"
    precision: str = "auto"
    bake_resize: bool = False
    force: bool = False
    with_backbone: bool = False
    threshold: float | None = None
    golden_frames: bool = True

    def __post_init__(self) -> None:
        """Refuse a limit that no score could reach, or that every score does."""
        if self.threshold is not None and not 0 < self.threshold < MAX_NUMBER:
            raise ConfigError(
                f"expected a finite threshold above 0, got {self.threshold:g}: scores are distances"
            )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model file in place.

    Attributes:
        path: of the file.
        size_bytes: of the file.
        info: what it says about itself; limits are in the unit of its own scores.
        parity: figures of the proof.
        backbone: path of the bare backbone, if it was asked for.
    """

    path: Path
    size_bytes: int
    info: ModelInfo
    parity: Parity
    backbone: Path | None = None


def export(
    run: Path | str,
    output: Path | str | None = None,
    options: ExportOptions | None = None,
    progress: Callable[[str], None] = logger.info,
) -> Exported:
    """Write the model file of a run; an older one stays until the new one is proven.

    Args:
        run: folder written by `edge-ad train`.
        output: where to write; None: `<category>-<method>.onnx` in the run folder.
        options: target, precision and what to do when the proof fails.
        progress: called with what is being done, in words.

    Raises:
        DataError: the run, or the pictures for the proof, cannot be read.
        ConfigError: the options do not go together.
        ExportError: the graph cannot be built or written, scores differently from PyTorch, or the
            run was trained again meanwhile.
    """
    run = Path(run)
    with unchanged(run):
        read = Run.read(run)
        detector = read_detector(run, device="cpu")
        trained = _Trained(run, _description(run))
    info = _describe_run(read.metrics, detector.preprocessing)
    path = model_file(run) if output is None else Path(output)
    pictures = ProofPictures.of(read)
    return _export(
        _Job(info, detector, pictures, path, options or ExportOptions(), progress, trained)
    )


def export_detector(
    detector: Detector,
    output: Path | str,
    *,
    category: str = "",
    pictures: Pictures | None = None,
    options: ExportOptions | None = None,
    progress: Callable[[str], None] = logger.info,
) -> Exported:
    """Write the model file of a detector in memory; see `Detector.export`."""
    output = Path(output)
    if detector.run is not None and pictures is None and not category:
        return export(detector.run, output, options, progress)
    if detector.limits is None:
        raise NotFittedError(
            "the detector has no decision limit: fit it on 3 pictures of good parts or more"
        )
    fitted = Dataset(()) if detector.fitted is None else detector.fitted
    compared = ProofPictures(fitted, Dataset(()) if pictures is None else as_dataset(pictures))
    if not len(compared):
        raise DataError(
            "expected pictures to compare the model file on, since the fitted ones of a loaded "
            "detector are not known: export it with `pictures`"
        )
    category = category or output.stem.removesuffix(f"-{detector.method}")
    with tempfile.TemporaryDirectory() as folder:
        # A copy on the CPU, which the export may change.
        detector.save(folder)
        copy = load(folder, device="cpu")
    info = _describe_detector(copy, detector.limits, category)
    return _export(_Job(info, copy, compared, output, options or ExportOptions(), progress))


def _export(job: "_Job") -> Exported:
    """Write the file in the first form that passes its comparison."""
    options = job.options
    if job.output.is_dir():
        raise ExportError(f"expected a file as --output, got the folder {job.output}: add a name")
    recipes = choose_recipes(options.target, options.precision, bake_resize=options.bake_resize)
    if len(recipes) > 1 and not has_integer_form(job.detector):
        recipes = tuple(recipe for recipe in recipes if recipe.precision != "int8")
    for recipe, next_ in pairwise(recipes):
        try:
            return _export_as(recipe, job)
        except ProofError as error:
            logger.warning(
                "%s is too coarse for this run (%s): exporting in %s",
                recipe.precision,
                error.problem,
                next_.precision,
            )
    return _export_as(recipes[-1], job)


@dataclass(frozen=True)
class _Trained:
    """A run, and what its `detector.json` said when it was read."""

    run: Path
    description: bytes

    def check(self) -> None:
        """Refuse a run that was trained again: its former model files are out of use by now.

        Raises:
            ExportError: it was.
        """
        if _description(self.run) != self.description:
            raise ExportError(f"{self.run} was trained again meanwhile: export it again")


def _description(run: Path) -> bytes:
    try:
        return (run / DETECTOR_FILE).read_bytes()
    except FileNotFoundError:
        return b""


@dataclass(frozen=True)
class _Job:
    """What is exported, and where to."""

    info: ModelInfo
    detector: Detector
    pictures: ProofPictures
    output: Path
    options: ExportOptions
    progress: Callable[[str], None]
    trained: _Trained | None = None


def _export_as(recipe: Recipe, job: _Job) -> Exported:
    """Build, prove and place one file."""
    detector, output, options = job.detector, job.output, job.options
    info = replace(job.info, target=recipe.target, resize_in_graph=recipe.bake_resize)
    backbone = backbone_file(output) if options.with_backbone else None
    try:
        remove_leftovers(output.parent)
        with temporary_folder(output.parent) as folder:
            # Only now, so that a folder that cannot be written to is found before the work.
            job.progress(f"building the graph ({recipe.precision}, {recipe.target})")
            model = build_graph(detector, recipe)
            temporary = folder / output.name
            _write(model, info, temporary)
            job.progress(f"comparing it with PyTorch on {counted(len(job.pictures), 'picture')}")
            scorer = Scorer(temporary, device="cpu")
            comparison = compare(detector, scorer, job.pictures)
            trained = info.threshold
            if not recipe.exact:
                info = with_own_limits(info, comparison)
            limits = (trained, info.threshold)
            if options.threshold is not None:
                info = with_threshold(info, options.threshold)
                limits = (options.threshold, options.threshold)
            parity = Parity.of(comparison, recipe.precision, limits)
            _judge(parity, exact=recipe.exact, force=options.force)
            info = replace(info, parity=asdict(parity))
            golden = None
            if options.golden_frames:
                golden = golden_frames(scorer, job.pictures, comparison, recipe.precision)
            _write(model, info, temporary, golden)
            bare = backbone_graph(detector).SerializeToString() if backbone else b""
            with ExitStack() as stack:
                if job.trained is not None:
                    stack.enter_context(unchanged(job.trained.run))
                    job.trained.check()
                if backbone:
                    write_whole(backbone, bare)
                os.replace(temporary, output)
    except OSError as error:
        raise ExportError(
            f"cannot write {output} ({error.strerror}): choose another --output"
        ) from error
    return Exported(
        path=output,
        size_bytes=output.stat().st_size,
        info=info,
        parity=parity,
        backbone=backbone,
    )


def _judge(parity: Parity, *, exact: bool, force: bool) -> None:
    try:
        parity.check(exact=exact)
    except ProofError as error:
        if not force:
            raise
        logger.warning("written because of --force, despite this: %s", error)


def _write(
    model: onnx.ModelProto, info: ModelInfo, path: Path, golden: Golden | None = None
) -> None:
    entries = {} if golden is None else golden.to_metadata()
    # The checksum is looked for from the end of the file.
    onnx.helper.set_model_props(model, entries | info.to_metadata(checksum=True))
    path.write_bytes(stamp(model.SerializeToString()))


def _describe_detector(detector: Detector, limits: Limits, category: str) -> ModelInfo:
    calibration = detector.calibration
    n_train = calibration.n + calibration.n_set_aside if calibration else None
    return ModelInfo(
        **vars(limits),
        method=detector.method,
        category=category,
        backbone=detector.backbone.name,
        input_size=detector.preprocessing.input_size,
        resize=detector.preprocessing.resize,
        calibration=calibration,
        training={"n_train": n_train, "seed": detector.config.seed},
        versions=_versions(),
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _describe_run(metrics: RunMetrics, preprocessing: Preprocessing) -> ModelInfo:
    return ModelInfo(
        **vars(metrics.limits),
        method=metrics.method,
        category=metrics.category,
        backbone=metrics.backbone,
        input_size=metrics.input_size,
        resize=preprocessing.resize,
        calibration=metrics.calibration,
        training={
            "n_train": metrics.n_train,
            "n_skipped": metrics.n_skipped,
            "content_hash": metrics.content_hash,
            "seed": metrics.seed,
            "trained_at": metrics.trained_at,
        },
        metrics=metrics.test_figures(),
        versions=_versions(),
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    return {
        "edge-ad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
