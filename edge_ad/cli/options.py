"""What several commands share: option types, and the check for optional dependencies."""

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import click

from edge_ad.progress import Progress, progress_to
from edge_ad_runtime.errors import ConfigError, MissingExtraError
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.score_distribution import check_rate
from edge_ad_runtime.native import NATIVE, cannot_load, import_native

Command = TypeVar("Command", bound=Callable[..., Any])

TRAINING_PACKAGES = ("torch", "torchvision", "sklearn", "joblib", "safetensors", "tqdm", "cv2")
"""What training cannot do without; all of them come with the extra `train`."""

_PROGRESS_SECONDS = 0.2

DEFAULT_RESULTS = Path("results")

data_root_option = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default=Path("datasets"),
    show_default=True,
    help="Where the class folders lie.",
)


def _rate(text: str) -> float:
    """Read a share such as 0.01, or `1%`."""
    try:
        return check_rate(float(text[:-1]) / 100 if text.endswith("%") else float(text))
    except ValueError as error:
        raise click.BadParameter(f"expected a share such as 0.01, or 1%, got {text!r}") from error
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


def rate_option(*, default: str | None = None) -> Callable[[Command], Command]:
    """Return `--false-alarm-rate`; `default` says what counts without it, None: it is required."""
    return click.option(
        "--false-alarm-rate",
        type=_rate,
        metavar="RATE",
        required=default is None,
        help="Share of good parts that may be called anomalous, such as 0.01 or 1%."
        + (f" Default: {default}." if default else ""),
    )


def results_option(help: str) -> Callable[[Command], Command]:
    """Return `--results`, the folder of all runs; `help` says what it is for."""
    return click.option(
        "--results",
        type=click.Path(path_type=Path),
        default=DEFAULT_RESULTS,
        show_default=True,
        help=help,
    )


progress_option = click.option(
    "--progress",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the progress of the work in this file, as JSON: stage, done, total.",
)


@contextmanager
def progress_file(path: Path | None) -> Iterator[None]:
    """Write how far the work in this block is, a few times a second; None: nowhere."""
    if path is None:
        yield
        return
    written_at = -math.inf

    def write(progress: Progress) -> None:
        nonlocal written_at
        ends = progress.done in (0, progress.total)
        if ends or monotonic() - written_at > _PROGRESS_SECONDS:
            written_at = monotonic()
            try:
                write_whole(path, json.dumps(asdict(progress)).encode())
            except OSError as error:
                raise ConfigError(
                    f"cannot write the progress file {path} ({error.strerror}): choose another "
                    "--progress"
                ) from error

    with progress_to(write):
        yield


def prepare_training(purpose: str) -> None:
    """Check for PyTorch and what comes with it, and set it up before anything imports it.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    require(TRAINING_PACKAGES, extra="train", purpose=purpose)
    # Read when PyTorch loads. Its threads wait for each other after every layer: spinning, they
    # take the cores from whatever else runs, and a fit on a busy machine took 7 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_export(purpose: str) -> None:
    """As `prepare_training`, with the exporter and the runtime that proves its files.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    prepare_training(purpose)
    require(("onnx", "onnxscript"), extra="train", purpose=purpose)
    require(("onnxruntime",), extra="cpu", purpose=purpose)


def require(modules: Sequence[str], extra: str, purpose: str) -> None:
    """Name a package that is not installed together with its extra, before anything is imported.

    OpenCV and ONNX Runtime are imported on the spot, since they may lack a system library.

    Raises:
        MissingExtraError: one of the modules is not installed or cannot be loaded.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        extra = f"'edge-ad[{extra}]'"
        # An extra brings both: one of them may be here already, from another distribution.
        alone = NATIVE.get(missing[0]) if len(missing) == 1 else None
        raise MissingExtraError(
            f"{purpose} needs the package '{missing[0]}', which is not installed: "
            f"pip install {extra if alone is None else f'{alone} (part of {extra})'}"
        )
    for module in modules:
        if module in NATIVE:
            try:
                import_native(module)
            except ImportError as error:
                raise cannot_load(module, error) from error


def terminal_columns() -> int | None:
    """Return the width of the terminal behind stdout; None: there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(row: str) -> str:
    """Return a row such as `limit        5.5: ...`, broken at the width of a terminal.

    In a file or a pipe it stays one row.
    """
    columns = terminal_columns()
    if columns is None:
        return row
    return textwrap.fill(
        row,
        columns,
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )


class FiniteRange(click.FloatRange):
    """A number within a range, which is neither NaN, that is within every range, nor infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number, or end the command."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"expected a finite number, got {value}", param, ctx)
        return number


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto uses CUDA where it works, and the CPU otherwise. The others never fall back.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads. Default: one for each physical core.",
)
threshold_option = click.option(
    "--threshold",
    type=float,
    help="Decision limit. Default: the one from `edge-ad calibrate`, or else the model file's.",
)
min_region_area_option = click.option(
    "--min-region-area",
    type=FiniteRange(min=0, max=1, max_open=True),
    metavar="SHARE",
    help="Smallest region to report, as a share of the picture, such as 0.001. Default: 0.",
)
