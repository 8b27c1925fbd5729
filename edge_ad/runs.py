"""Where runs lie: `results/<category>/<method>/`. Paths only, so that a device can ask as well."""

from collections.abc import Iterable
from pathlib import Path

DEFAULT_RESULTS = Path("results")
DETECTOR_FILE = "detector.json"


def run_folder(results: Path, category: str, method: str) -> Path:
    """Return the folder of one run; it need not exist."""
    return results / category / method


def newest_run(results: Path) -> Path | None:
    """Return the run that was written last below `results`, or None."""
    newest = _newest(results.glob(f"*/*/{DETECTOR_FILE}"))
    return newest.parent if newest else None


def newest_model(results: Path) -> Path | None:
    """Return the model file that was written last below `results`, or None."""
    return _newest(results.glob("*/*/*.onnx"))


def model_file(run: Path) -> Path:
    """Return where the exported file of a run lies: `<category>-<method>.onnx` inside it."""
    return run / f"{run.parent.name}-{run.name}.onnx"


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
