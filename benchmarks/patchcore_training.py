"""Wall time and peak memory of training PatchCore, phase by phase.

python benchmarks/patchcore_training.py --data-root DIR --class bottle
"""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch

from edge_ad.data import load_category
from edge_ad.models import PatchCore
from edge_ad.models.coreset import greedy_coreset, project
from edge_ad_runtime import Preprocessing


@click.command()
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--class", "category_name", default="bottle", show_default=True)
@click.option("--coreset", default=0.1, show_default=True)
def main(data_root: Path, category_name: str, coreset: float) -> None:
    """Run the phases of a fit one after the other and print a Markdown table."""
    category = load_category(category_name, data_root)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("\n| phase | seconds | peak memory so far, MiB |\n|---|---:|---:|")
    with phase("start: imports and backbone"):
        detector = PatchCore(input_size=(256, 256))
    with phase("features of all patches"), torch.inference_mode():
        preprocessing = Preprocessing(input_size=(256, 256))
        batches = category.train.batches(preprocessing, batch_size=4)
        patches = torch.cat(
            [detector.embed(torch.from_numpy(frames)).flatten(0, 1) for _, frames in batches]
        )
    with phase(f"coreset: {int(coreset * len(patches)):,} of {len(patches):,} patches"):
        picks = greedy_coreset(project(patches, seed=0), int(coreset * len(patches))).picks
        detector.memory = patches[picks].clone()
        detector.owners = torch.zeros(len(picks), dtype=torch.int32)
        del patches
    with phase(f"evaluation of {len(category.test)} test pictures"):
        detector.evaluate(category.test)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Print a row of the table at the end of a phase."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {time.perf_counter() - started:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
