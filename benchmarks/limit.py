"""Whether the decision limit keeps the false-alarm rate that it promises, on random splits.

python benchmarks/limit.py padim --data-root DIR
python benchmarks/limit.py padim --data-root DIR --classes bottle,elpv-mono --planted 0.05

For each split some good pictures are drawn to fit the detector and its limit; the other good ones
are new parts, which the limit should stop at the promised rate, and the defective ones are what it
should catch. The features of all pictures are computed once and lie in --cache.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from edge_ad.data import Dataset, Sample, choose_input_size, load_category
from edge_ad.models import SPADE, Detector, PaDiM, PatchCore
from edge_ad.models.grid import embed_on_grid, local_average

MOST_GOOD, MOST_DEFECTIVE = 350, 120
"""Pictures of a class whose features are computed, drawn at random where there are more."""

NEW_GOOD, NEW_DEFECTIVE = 120, 60
"""Pictures that are scored for each split, at most."""

FEWEST_NEW = 15
"""Good pictures that must be left for that; a class with fewer has no such row."""

RATES = (0.01, 0.05)
LISTED = 0.05
"""Share of the fitted pictures, those with the highest scores, that a person is asked to check."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the backbone says about the pictures of a class, the good ones first.

    Attributes:
        grid: (n, channels, patches), float16: strides 4, 8 and 16, 3 x 3 averaged.
        pooled: (n, channels of stride 32), float32.
        n_good: how many are good.
        input_size: (height, width) in pixels.
    """

    grid: Tensor
    pooled: Tensor
    n_good: int
    input_size: tuple[int, int]

    @property
    def defective(self) -> Indices:
        """Indices of the pictures of defective parts."""
        return np.arange(self.n_good, len(self.pooled))


class CachedPaDiM(PaDiM):
    """PaDiM on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> Tensor:
        """Look pictures (N,) up: (positions, dims, N)."""
        return self.features.grid[frames].float().permute(2, 1, 0)


class CachedPatchCore(PatchCore):
    """PatchCore on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> Tensor:
        """Look pictures (N,) up, strides 8 and 16: (N, patches, channels)."""
        return self.features.grid[frames, -self.n_channels :].float().transpose(1, 2)


class CachedSPADE(SPADE):
    """SPADE on pictures that are given by index."""

    features: Features

    def embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Look pictures (N,) up: pooled features (N, C), patches (N, patches, dims)."""
        patches = self.features.grid[frames].float().transpose(1, 2) @ self.projection
        return self.features.pooled[frames], patches


CACHED: dict[str, Any] = {"padim": CachedPaDiM, "patchcore": CachedPatchCore, "spade": CachedSPADE}


@dataclass
class Tally:
    """Shares of pictures at or above each limit, one entry a split."""

    alarms: dict[str, list[float]] = field(default_factory=dict)
    missed: dict[str, list[float]] = field(default_factory=dict)
    p_values: list[float] = field(default_factory=list)
    listed: list[float] = field(default_factory=list)
    """Shares of the planted defects among the fitted pictures with the highest scores."""

    def add(self, rule: str, limit: float, good: Tensor, defective: Tensor) -> None:
        """Count the new good parts that a limit stops, and the defective ones that it lets pass."""
        self.alarms.setdefault(rule, []).append(float((good >= limit).float().mean()))
        self.missed.setdefault(rule, []).append(float((defective < limit).float().mean()))


@click.command()
@click.argument("method", type=click.Choice(list(CACHED)))
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor,commutator,elpv-mono,elpv-poly")
@click.option("--sizes", default="50,100", show_default=True, help="Good pictures to fit.")
@click.option("--splits", type=int, help="Default: 20, or 5 for PatchCore, whose fits take long.")
@click.option("--coreset", default=0.1, show_default=True, help="Of PatchCore.")
@click.option("--planted", default=0.0, help="Share of the fitted pictures that are defective.")
@click.option(
    "--today",
    type=int,
    help="Splits with the first version's rule as well. Default: 5, or 1 for PatchCore.",
)
@click.option("--threads", default=2, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("results/limit-features"))
def main(
    method: str,
    data_root: Path,
    classes: str,
    sizes: str,
    splits: int | None,
    coreset: float,
    planted: float,
    today: int | None,
    threads: int,
    cache: Path,
) -> None:
    """Fit METHOD on random splits of each class and print what its limits do, as Markdown."""
    torch.set_num_threads(threads)
    logging.getLogger("edge_ad").setLevel(logging.ERROR)  # the weights are in the cached features
    started = time.perf_counter()
    options: dict[str, Any] = {"coreset": coreset} if method == "patchcore" else {}
    splits = splits or (5 if options else 20)
    today = (1 if options else 5) if today is None else today
    print_header(method, options, splits, planted, today)
    rows: list[tuple[int, Tally]] = []
    for name in classes.split(","):
        features = load_features(name, data_root, cache)
        for size in (int(size) for size in sizes.split(",")):
            if size - round(planted * size) > features.n_good - FEWEST_NEW:
                continue
            tally = Tally()
            for seed in tqdm(range(splits), desc=f"{method} {name} {size}", disable=None):
                run_split(tally, method, options, features, size, seed, planted, seed < today)
            rows.append((size, tally))
            print_row(name, size, figures(tally))
    for size in sorted({size for size, _ in rows}):
        of_size = [figures(tally) for other, tally in rows if other == size]
        print_row("**mean**", size, np.mean(of_size, axis=0))
    minutes = (time.perf_counter() - started) / 60
    click.echo(f"\n{minutes:.1f} minutes, {torch.get_num_threads()} threads")


def run_split(
    tally: Tally,
    method: str,
    options: dict[str, Any],
    features: Features,
    size: int,
    seed: int,
    planted: float,
    today: bool,
) -> None:
    """Fit on `size` pictures drawn by chance, and count what its limits do to the others."""
    generator = np.random.default_rng(seed)
    good = generator.permutation(features.n_good)
    defective = generator.permutation(features.defective)
    n_planted = round(planted * size)
    fitted = np.concatenate([good[: size - n_planted], defective[:n_planted]])
    new_good = good[size - n_planted :][:NEW_GOOD]
    new_defective = defective[n_planted:][:NEW_DEFECTIVE]
    detector = fit(method, options, features, fitted, seed)
    assert detector.good is not None
    calibration = detector.good.calibrate(RATES[0])
    scores = predict(detector, np.concatenate([new_good, new_defective]))
    of_good, of_defective = scores[: len(new_good)], scores[len(new_good) :]
    for rate in RATES:
        tally.add(f"{rate:.0%}", calibration.limit(rate), of_good, of_defective)
    tally.p_values += [calibration.p_value(score) for score in of_good.tolist()]
    if n_planted:
        highest = np.argsort(-detector.good.scores)[: max(n_planted, round(LISTED * size))]
        tally.listed.append(float(np.mean(np.isin(np.arange(size - n_planted, size), highest))))
    if today:
        held_out = generator.permutation(fitted)[: max(1, round(0.1 * size))]
        detector = fit(method, options, features, np.setdiff1d(fitted, held_out), seed)
        limit = float(np.percentile(predict(detector, held_out).numpy(), 99))
        scores = predict(detector, np.concatenate([new_good, new_defective]))
        tally.add("today", limit, scores[: len(new_good)], scores[len(new_good) :])


def fit(
    method: str, options: dict[str, Any], features: Features, pictures: Indices, seed: int
) -> Detector:
    """Fit a detector to pictures by index."""
    detector: Detector = CACHED[method](
        **options, weights="none", device="cpu", seed=seed, input_size=features.input_size
    )
    detector.features = features  # type: ignore[assignment]
    with torch.inference_mode():
        left_out = detector.fit_features(batches(pictures), len(pictures))
        detector.good = detector.good_scores(left_out)
    return detector


def predict(detector: Detector, pictures: Indices) -> Tensor:
    """Score pictures by index: (n,)."""
    with torch.inference_mode():
        return torch.cat([detector(batch)[0] for batch in batches(pictures)])


def batches(pictures: Indices) -> Iterator[Tensor]:
    """Yield indices, a few at a time."""
    yield from torch.split(torch.from_numpy(pictures), 25)


def load_features(name: str, data_root: Path, cache: Path) -> Features:
    """Return the features of a class, from the cache if they are there."""
    path = cache / f"{name}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(compute_features(name, data_root), path)
    stored = torch.load(path, mmap=True)
    return Features(
        grid=stored["grid"].flatten(2),
        pooled=stored["pooled"],
        n_good=stored["n_good"],
        input_size=stored["input_size"],
    )


def compute_features(name: str, data_root: Path) -> dict[str, Any]:
    """Run the backbone over the good pictures of both splits and the defective ones."""
    category = load_category(name, data_root)
    samples = [*category.train, *category.test]
    good = drawn([item for item in samples if not item.anomalous], MOST_GOOD)
    defective = drawn([item for item in samples if item.anomalous], MOST_DEFECTIVE)
    size = choose_input_size(category.train)
    detector = SPADE(input_size=size)
    grid: list[Tensor] = []
    pooled: list[Tensor] = []
    everything = Dataset([*good, *defective])
    with torch.inference_mode():
        for _, frames in everything.batches(
            detector.preprocessing, batch_size=4, description=f"{name} features"
        ):
            images = detector.backbone.normalise(torch.from_numpy(frames))
            *maps, deepest = detector.backbone(images)
            grid.append(embed_on_grid(local_average(maps, 3), detector.grid).half())
            pooled.append(deepest.mean(dim=(2, 3)))
    return {
        "grid": torch.cat(grid),
        "pooled": torch.cat(pooled),
        "n_good": len(good),
        "input_size": size,
    }


def drawn(samples: list[Sample], most: int) -> list[Sample]:
    """Return all samples, or that many of them by chance, in their order."""
    chosen = np.random.default_rng(0).permutation(len(samples))[:most]
    return [samples[index] for index in sorted(chosen)]


def print_header(
    method: str, options: dict[str, Any], splits: int, planted: float, today: int
) -> None:
    """Print what was run, and the head of the table."""
    settings = "".join(f", {key} {value}" for key, value in options.items())
    spoilt = f", {planted:.0%} of the fitted pictures defective" if planted else ""
    click.echo(
        f"\n{method}{settings}: {splits} splits, {min(today, splits)} of them with the first "
        f"version's rule as well{spoilt}; shares in percent\n"
    )
    click.echo(
        "| class | good pictures | false alarms at 1 % | at 5 % | first version's rule "
        "| missed at 1 % | at 5 % | first version's rule | p <= 0.05 | p <= 0.01 | listed |"
    )
    click.echo("|---|" + "---:|" * 10)


def print_row(name: str, size: int, row: NDArray[np.float64]) -> None:
    """Print shares in percent."""
    cells = ["-" if np.isnan(share) else f"{100 * share:.1f}" for share in row]
    click.echo(f"| {name} | {size} | " + " | ".join(cells) + " |")


def figures(tally: Tally) -> NDArray[np.float64]:
    """Return the shares of one row; nan where something was not looked at."""
    p_values = np.array(tally.p_values)
    rules = (f"{RATES[0]:.0%}", f"{RATES[1]:.0%}", "today")
    shares = [np.mean(tally.alarms.get(rule, np.nan)) for rule in rules]
    shares += [np.mean(tally.missed.get(rule, np.nan)) for rule in rules]
    shares += [np.mean(p_values <= 0.05), np.mean(p_values <= 0.01)]
    shares += [np.mean(tally.listed or np.nan)]
    return np.array(shares, dtype=np.float64)


if __name__ == "__main__":
    main()
