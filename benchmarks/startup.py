"""How soon a device has the runtime, and its first verdict: targets 0.3 s and 1 s.

python benchmarks/startup.py --model results/bottle/padim/bottle-padim.onnx
"""

import platform
import statistics
import subprocess
import sys
from pathlib import Path

import click

IMPORT = "from edge_ad_runtime import Scorer"
FIRST_VERDICT = (
    "import sys, numpy; from edge_ad_runtime import Scorer; "
    "Scorer(sys.argv[1], device='cpu').score(numpy.zeros((512, 512, 3), numpy.uint8))"
)
TIMED = "import sys, time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", type=click.IntRange(min=1), default=9, show_default=True)
def main(model: Path, rounds: int) -> None:
    """Start Python anew for each round, interleaved, and print the medians."""
    seconds: dict[str, list[float]] = {IMPORT: [], FIRST_VERDICT: []}
    for _ in range(rounds):
        for statement, times in seconds.items():
            command = [sys.executable, "-c", TIMED.format(statement), str(model)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            times.append(float(done.stdout))
    print(f"{platform.machine()}, Python {platform.python_version()}, medians of {rounds}")
    print(f"import         {statistics.median(seconds[IMPORT]):.2f} s (target 0.3)")
    print(f"first verdict  {statistics.median(seconds[FIRST_VERDICT]):.2f} s (target 1)")


if __name__ == "__main__":
    main()
