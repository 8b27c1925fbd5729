"""Whether the exported file keeps the promised false-alarm rate, on random splits.

python benchmarks/limit_exported.py padim --data-root DIR [--classes bottle,transistor --splits 3]

The detector is fitted to random good pictures and exported in 8 bits; the file then scores the
other good pictures, which neither the fit nor the export has seen. The same pictures are scored in
PyTorch beside it.
"""

import logging
import tempfile
from pathlib import Path

import click
import numpy as np
import torch

from edge_ad.data import Dataset, load_category
from edge_ad.models import Fusion, PaDiM
from edge_ad_runtime import Scorer, read_frame

MOST_NEW = 120
METHODS: dict[str, type[PaDiM] | type[Fusion]] = {"padim": PaDiM, "fusion": Fusion}


@click.command()
@click.argument("method", type=click.Choice(list(METHODS)))
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor", show_default=True)
@click.option("--size", default=100, show_default=True, help="Good pictures to fit.")
@click.option("--splits", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(method: str, data_root: Path, classes: str, size: int, splits: int, threads: int) -> None:
    """Print, for each class, false alarms among new good parts at 1 and 5 %, as Markdown."""
    torch.set_num_threads(threads)
    logging.getLogger("edge_ad").setLevel(logging.ERROR)
    click.echo("| class | new good parts | file, 1 % | PyTorch, 1 % | file, 5 % | PyTorch, 5 % |")
    click.echo("|---|---:|---:|---:|---:|---:|")
    for name in classes.split(","):
        rows = [
            rates_of_split(method, name, data_root, size, seed, threads) for seed in range(splits)
        ]
        n_new = sum(count for count, _ in rows)
        cells = np.mean([rates for _, rates in rows], axis=0)
        click.echo(
            f"| {name} | {n_new} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |"
        )


def rates_of_split(
    method: str, name: str, data_root: Path, size: int, seed: int, threads: int
) -> tuple[int, list[float]]:
    """Return how many new parts there were, and what share each limit stops."""
    category = load_category(name, data_root)
    good = [sample for sample in [*category.train, *category.test] if not sample.anomalous]
    order = np.random.default_rng(seed).permutation(len(good))
    fitted = Dataset([good[index] for index in order[:size]])
    new = [good[index] for index in order[size:]][:MOST_NEW]
    detector = METHODS[method](device="cpu", seed=seed).fit(fitted)
    assert detector.good is not None
    in_float = np.array([found.score for found in detector.predict([item.path for item in new])])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        detector.export(path, category=name)
        scorer = Scorer(path, device="cpu", threads=threads)
        of_file = np.array([scorer.score(read_frame(item.path)).score for item in new])
    rates = []
    for rate in (0.01, 0.05):
        assert scorer.info.calibration is not None
        rates.append(float(np.mean(of_file >= scorer.info.calibration.limit(rate))))
        rates.append(float(np.mean(in_float >= detector.good.calibrate(rate).limit())))
    return len(new), rates


if __name__ == "__main__":
    main()
