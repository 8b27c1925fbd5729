"""What `benchmarks/arm.py` runs on both machines: `info`, `predict` and `stream` on model files.

    python arm_device.py FOLDER OUTPUT.json

FOLDER holds `models` and `pictures`. Everything runs in one process, because starting Python and
ONNX Runtime takes half a minute where QEMU emulates them.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from edge_ad.cli import main as edge_ad


def score(models: Path, pictures: Path) -> dict[str, Any]:
    """Run the commands on each model file.

    Returns:
        `onnxruntime`, its version, and `models`: by name, what `predict` and `stream` said of each
        picture, as (score, anomalous).
    """
    said = {}
    for path in sorted(models.glob("*.onnx")):
        model = os.fspath(path)
        info = json.loads(run("info", model, "--json"))
        if info["method"] not in path.stem:
            raise ValueError(f"expected the method of {path.name}, `info` says {info['method']}")
        lines = run("stream", "--camera", os.fspath(pictures), "--model", model).splitlines()
        verdicts = {
            "predict": json.loads(run("predict", model, os.fspath(pictures), "--json")),
            "stream": [line for line in map(json.loads, lines) if "score" in line],
        }
        said[path.stem] = {
            command: [(each["score"], each["anomalous"]) for each in printed]
            for command, printed in verdicts.items()
        }
    return {"onnxruntime": version("onnxruntime"), "models": said}


def run(*arguments: str) -> str:
    """Run a command of `edge-ad` in this process and return what it printed to stdout.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    result = CliRunner().invoke(edge_ad, arguments)
    if result.exit_code != 0:
        raise RuntimeError(
            f"edge-ad {' '.join(arguments)}: exit code {result.exit_code}: {result.output}"
        ) from result.exception
    return result.stdout


if __name__ == "__main__":
    folder, output = map(Path, sys.argv[1:])
    output.write_text(json.dumps(score(folder / "models", folder / "pictures")))
