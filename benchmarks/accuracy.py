"""Whether the default detector beats the others, with intervals; and how few pictures it needs.

python benchmarks/accuracy.py methods --preset fast --data-root DIR
python benchmarks/accuracy.py few --data-root DIR

The features of all pictures are computed once and lie in --cache. Intervals are those of a paired
bootstrap: the test pictures of each class, good and defective ones apart, are drawn again with
replacement, and both detectors are judged on the same draw.
"""

import logging
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from bootstrap import (  # type: ignore[import-not-found]  # beside this script
    Maps,
    Truth,
    Values,
    bootstrap,
    exact,
    image_and_pixel,
    intervals,
    resampled,
)
from limit_features import (  # type: ignore[import-not-found]  # beside this script
    CACHED,
    Features,
)
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.config import CONFIGS
from edge_ad.data import Category, choose_input_size, load_category
from edge_ad.models import Detector, PaDiM
from edge_ad_runtime.model.image import Preprocessing
from edge_ad_runtime.model.picture_file import read_mask

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "PaDiM, own covariances": ("padim", {"pooling": 0.0}),
    "PaDiM": ("padim", {}),
    "fusion, own covariances": ("fusion", {"pooling": 0.0}),
    "fusion": ("fusion", {}),
}
DEFAULT = "fusion"
OF_FEW: dict[str, tuple[str, dict[str, Any]]] = {
    "fusion": ("fusion", {}),
    "own covariances": ("fusion", {"pooling": 0.0}),
    "share 1": ("fusion", {"pooling": 1.0}),
    "memory of 1 %": ("fusion", {"coreset": 0.01}),
    "PaDiM": ("padim", {}),
}
FIGURES = ("image", "pixel", "PRO")
SIZES, DRAWS = (5, 10, 20), 10
AT_ONCE = 8


@click.group()
@click.option("--threads", default=2, show_default=True)
def main(threads: int) -> None:
    """Measure the accuracy of the detectors."""
    torch.set_num_threads(threads)
    logging.getLogger("edge_ad").setLevel(logging.ERROR)  # the weights are in the cached features


@main.command()
@click.option("--preset", type=click.Choice(("fast", "accurate")), default="fast")
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor,commutator,alien", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("results/accuracy-features"))
@click.option("--method", "chosen", multiple=True, default=tuple(METHODS), help="Default: all.")
def methods(
    preset: str, data_root: Path, classes: str, cache: Path, chosen: tuple[str, ...]
) -> None:
    """Compare the methods on whole classes, and print the differences with intervals."""
    started = time.perf_counter()
    found: dict[str, dict[str, Values]] = {}
    print_head("class", "method", "covariance borrowed", *FIGURES)
    for name in classes.split(","):
        category = load_category(name, data_root)
        features = load_features(category, preset, cache)
        truth = truth_of(category, features)
        fitted = np.arange(len(category.train))
        test = np.arange(len(category.train), len(features.grid))
        weights = resampled(truth.defective)
        for method in chosen:
            detector = fit(*METHODS[method], preset, features, fitted)
            said = score(detector, test)
            found.setdefault(name, {})[method] = bootstrap(said, truth, weights)
            share = getattr(detector.config, "pooling", None)
            print_row(name, method, f"{share:.2f}", *cells(exact(said, truth)))
    for other in chosen:
        if other != DEFAULT and DEFAULT in chosen:
            print_differences(found, DEFAULT, other)
    minutes = (time.perf_counter() - started) / 60
    click.echo(f"\n{preset}, {minutes:.1f} minutes, {torch.get_num_threads()} threads")


@main.command()
@click.option("--preset", type=click.Choice(("fast", "accurate")), default="fast")
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor,commutator,alien", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("results/accuracy-features"))
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True)
@click.option("--draws", "n_draws", default=DRAWS, show_default=True)
@click.option("--method", "chosen", multiple=True, default=tuple(OF_FEW), help="Default: all.")
def few(
    preset: str,
    data_root: Path,
    classes: str,
    cache: Path,
    sizes: str,
    n_draws: int,
    chosen: tuple[str, ...],
) -> None:
    """Fit on a few good pictures, drawn by chance: mean ROC-AUC, and standard deviation."""
    print_head("good pictures", "class", *chosen)
    for size in map(int, sizes.split(",")):
        for name in classes.split(","):
            category = load_category(name, data_root)
            features = load_features(category, preset, cache)
            truth = truth_of(category, features)
            test = np.arange(len(category.train), len(features.grid))
            rows: dict[str, list[Values]] = {method: [] for method in chosen}
            for seed in range(n_draws):
                order = np.random.default_rng(seed).permutation(len(category.train))
                for method in chosen:
                    detector = fit(*OF_FEW[method], preset, features, np.sort(order[:size]))
                    rows[method].append(image_and_pixel(score(detector, test), truth))
            print_row(str(size), name, *(spread(np.array(row)) for row in rows.values()))


def load_features(category: Category, preset: str, cache: Path) -> Features:
    """Return the features of the train and test pictures, from the cache if they are there."""
    path = cache / f"{category.name}-{preset}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = CONFIGS["padim"].preset(preset)
        size = choose_input_size(category.train, area=options.get("size", 256) ** 2)
        detector = PaDiM(**options, dims="all", input_size=size)
        grid: list[Tensor] = []
        for part in (category.train, category.test):
            batches = part.batches(
                detector.preprocessing, batch_size=4, description=f"{category.name} features"
            )
            with torch.inference_mode():
                for _, frames in batches:
                    grid.append(detector.embed(torch.from_numpy(frames)).permute(2, 1, 0).half())
        stored = {"grid": torch.cat(grid), "input_size": detector.preprocessing.input_size}
        torch.save(stored, path)
    stored = torch.load(path, mmap=True)
    return Features(
        grid=stored["grid"],
        pooled=torch.empty(0),
        n_good=len(category.train),
        input_size=tuple(stored["input_size"]),
    )


def truth_of(category: Category, features: Features) -> Truth:
    """Read the labels and masks of the test pictures; no masks unless every defect has one."""
    samples = list(category.test)
    defective = np.array([sample.anomalous for sample in samples])
    if any(sample.anomalous and sample.mask_path is None for sample in samples):
        return Truth(defective=defective, masks=None)
    masks = np.zeros((len(samples), *features.input_size), dtype=np.bool_)
    preprocessing = Preprocessing(input_size=features.input_size)
    for mask, sample in zip(masks, samples, strict=True):
        if sample.mask_path is not None:
            mask[:] = preprocessing.apply_mask(read_mask(sample.mask_path))
    return Truth(defective=defective, masks=masks)


def fit(
    name: str,
    options: dict[str, Any],
    preset: str,
    features: Features,
    pictures: NDArray[np.int64],
) -> Detector:
    """Fit a detector, by the name of its method, to pictures by index."""
    options = CONFIGS[name].preset(preset) | options
    detector: Detector = CACHED[name](
        **options, weights="none", device="cpu", input_size=features.input_size
    )
    detector.features = features
    with torch.inference_mode():
        detector.fit_features(iter(torch.split(torch.from_numpy(pictures), AT_ONCE)), len(pictures))
    return detector


def score(detector: Detector, pictures: NDArray[np.int64]) -> Maps:
    """Score pictures by index."""
    with torch.inference_mode():
        said = [detector(batch) for batch in torch.split(torch.from_numpy(pictures), AT_ONCE)]
    scores, maps = zip(*said, strict=True)
    return Maps(torch.cat(scores).double().numpy(), torch.cat(maps).numpy())


def print_differences(found: dict[str, dict[str, Values]], one: str, other: str) -> None:
    """Print by how much one method is better: on average, and without each of the classes."""
    click.echo(f"\n{one} minus {other}, points: mean and 95 % interval\n")
    print_head("classes", *FIGURES)
    differences = {name: figures[one] - figures[other] for name, figures in found.items()}
    print_row("all", *intervals(list(differences.values())))
    for left_out in differences if len(differences) > 1 else ():
        rest = [values for name, values in differences.items() if name != left_out]
        print_row(f"without {left_out}", *intervals(rest))
    for name, values in differences.items():
        print_row(f"only {name}", *intervals([values]))


def spread(values: Values) -> str:
    """Return image and pixel ROC-AUC of some draws (draws, 2): mean and standard deviation."""
    texts = [
        f"{mean:.1f} +- {deviation:.1f}"
        for mean, deviation in zip(values.mean(axis=0), values.std(axis=0), strict=True)
        if not np.isnan(mean)
    ]
    return " / ".join(texts)


def cells(figures: Values) -> list[str]:
    """Write figures in percent; a dash for those that are not known."""
    return ["-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures]


def print_head(*titles: str) -> None:
    """Print the head of a Markdown table."""
    click.echo("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))


def print_row(*texts: str) -> None:
    """Print a row of a Markdown table."""
    click.echo("| " + " | ".join(texts) + " |")


if __name__ == "__main__":
    main()
