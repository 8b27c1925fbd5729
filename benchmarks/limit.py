"""Whether the decision limit keeps the false-alarm rate that it promises, on random splits.

python benchmarks/limit.py padim --data-root DIR
python benchmarks/limit.py padim --data-root DIR --classes bottle,elpv-mono --planted 0.05

For each split some good pictures are drawn to fit the detector and its limit; the other good ones
are new parts, which the limit should stop at the promised rate, and the defective ones are what it
should catch. --cache keeps the features of all pictures and the scores of each split: an
interrupted run goes on where it was, and another rule for the limit needs no fits. Delete the
scores there after a change of the detectors.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from limit_features import (  # type: ignore[import-not-found]  # beside this script
    CACHED,
    Features,
    Indices,
    load_features,
)
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from edge_ad.config import CONFIGS
from edge_ad.models import Detector
from edge_ad.models.leave_one_out import UNUSUAL_SHARE
from edge_ad_runtime.model.calibration import calibrate

NEW_GOOD, NEW_DEFECTIVE = 120, 60
"""Pictures that are scored for each split, at most."""

FEWEST_NEW = 15
"""Good pictures that must be left for that; a class with fewer has no such row."""

RATES = (0.01, 0.05)

Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is fitted: a method with its options, on so many pictures, some of them defective."""

    method: str
    options: dict[str, Any]
    size: int
    planted: float
    first_version: int
    """Splits that are scored with the first version's rule as well."""

    @property
    def n_planted(self) -> int:
        """Defective ones among the fitted pictures, the last ones."""
        return round(self.planted * self.size)

    @property
    def folder(self) -> str:
        """Where the scores of such runs lie."""
        options = "".join(f"-{key}-{value}" for key, value in self.options.items())
        return self.method + options + (f"-planted-{self.planted}" if self.planted else "")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one split; empty where the first version's rule was not asked for.

    Attributes:
        left_out: of the fitted pictures, each left out.
        map_maxima: highest values of their maps.
        good, defective: of new parts.
        first_held_out: of the tenth of the fitted pictures that the first version held out.
        first_good, first_defective: of new parts, with a fit of the other nine tenths.
    """

    left_out: Values
    map_maxima: Values
    good: Values
    defective: Values
    first_held_out: Values
    first_good: Values
    first_defective: Values


@dataclass
class Tally:
    """Shares of pictures at or above each limit, one entry a split."""

    alarms: dict[str, list[float]] = field(default_factory=dict)
    missed: dict[str, list[float]] = field(default_factory=dict)
    p_values: list[float] = field(default_factory=list)
    listed: list[float] = field(default_factory=list)
    """Shares of the planted defects among the fitted pictures with the highest scores."""

    def add(self, rule: str, limit: float, good: Values, defective: Values) -> None:
        """Count the new good parts that a limit stops, and the defective ones that it lets pass."""
        self.alarms.setdefault(rule, []).append(float(np.mean(good >= limit)))
        self.missed.setdefault(rule, []).append(float(np.mean(defective < limit)))


@click.command()
@click.argument("method", type=click.Choice(list(CACHED)))
@click.option("--preset", type=click.Choice(("fast", "accurate")), default="fast")
@click.option("--data-root", type=click.Path(path_type=Path), default=Path("datasets"))
@click.option("--classes", default="bottle,transistor,commutator,elpv-mono,elpv-poly")
@click.option("--sizes", default="50,100", show_default=True, help="Good pictures to fit.")
@click.option("--splits", type=int, help="Default: 20, or 5 for PatchCore, whose fits take long.")
@click.option("--coreset", default=0.1, show_default=True, help="Of PatchCore.")
@click.option(
    "--step",
    type=click.Choice(["1", "2"]),
    default="1",
    help="2: every second patch across and down, which takes PatchCore a tenth of the time.",
)
@click.option("--planted", default=0.0, help="Share of the fitted pictures that are defective.")
@click.option(
    "--first-version",
    type=int,
    help="Splits with the first version's rule as well. Default: 5, or 1 for PatchCore.",
)
@click.option("--threads", default=2, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path("results/limit-features"))
def main(
    method: str,
    preset: str,
    data_root: Path,
    classes: str,
    sizes: str,
    splits: int | None,
    coreset: float,
    step: str,
    planted: float,
    first_version: int | None,
    threads: int,
    cache: Path,
) -> None:
    """Fit METHOD on random splits of each class and print what its limits do, as Markdown."""
    torch.set_num_threads(threads)
    logging.getLogger("edge_ad").setLevel(logging.ERROR)  # the weights are in the cached features
    started = time.perf_counter()
    options = CONFIGS[method].preset(preset)
    if method == "patchcore":
        options = options | {"coreset": coreset}
    if step != "1":
        options = options | {"grid_stride": 8 * int(step)}
    slow = method == "patchcore" and step == "1"
    splits = splits or (5 if slow else 20)
    if first_version is None:
        first_version = 1 if slow else 5
    print_header(method, options, splits, planted, first_version)
    rows: list[tuple[int, Tally]] = []
    for name in classes.split(","):
        features = load_features(name, preset, data_root, cache, int(step))
        for size in (int(size) for size in sizes.split(",")):
            run = Run(
                method=method,
                options=options,
                size=size,
                planted=planted,
                first_version=first_version,
            )
            if size - run.n_planted > features.n_good - FEWEST_NEW:
                continue
            tally = Tally()
            for seed in tqdm(range(splits), desc=f"{method} {name} {size}", disable=None):
                path = cache / "scores" / run.folder / f"{name}-{size}-{seed}.npz"
                count(tally, run, load_scores(path, run, features, seed))
            rows.append((size, tally))
            print_row(name, size, figures(tally))
    for size in sorted({size for size, _ in rows}):
        of_size = [figures(tally) for other, tally in rows if other == size]
        print_row("**mean**", size, np.mean(of_size, axis=0))
    minutes = (time.perf_counter() - started) / 60
    click.echo(f"\n{minutes:.1f} minutes, {torch.get_num_threads()} threads")


def count(tally: Tally, run: Run, scores: Scores) -> None:
    """Set limits from the left-out scores, and count what they do to the new parts."""
    calibration = calibrate(scores.left_out, scores.map_maxima, rate=RATES[0])
    for rate in RATES:
        tally.add(f"{rate:.0%}", calibration.limit(rate), scores.good, scores.defective)
    tally.p_values += [calibration.p_value(score) for score in scores.good.tolist()]
    if run.n_planted:
        listed = math.ceil(UNUSUAL_SHARE * run.size)
        highest = np.argsort(-scores.left_out)[:listed]
        tally.listed.append(float(np.sum(highest >= run.size - run.n_planted)) / run.n_planted)
    if len(scores.first_held_out):
        limit = float(np.percentile(scores.first_held_out, 99))
        tally.add("first version", limit, scores.first_good, scores.first_defective)


def load_scores(path: Path, run: Run, features: Features, seed: int) -> Scores:
    """Return the scores of a split, from the cache if they are there."""
    wanted = seed < run.first_version
    if path.exists():
        scores = Scores(**np.load(path))
        if len(scores.first_held_out) or not wanted:
            return scores
    scores = score_split(run, features, seed, wanted)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **asdict(scores))
    return scores


def score_split(run: Run, features: Features, seed: int, first_version: bool) -> Scores:
    """Fit on pictures drawn by chance, and score the others."""
    generator = np.random.default_rng(seed)
    good = generator.permutation(features.n_good)
    defective = generator.permutation(features.defective)
    n_good = run.size - run.n_planted
    fitted = np.concatenate([good[:n_good], defective[: run.n_planted]])
    new_good = good[n_good:][:NEW_GOOD]
    new = np.concatenate([new_good, defective[run.n_planted :][:NEW_DEFECTIVE]])
    detector = fit(run, features, fitted, seed)
    assert detector.good is not None
    scores = predict(detector, new)
    first_held_out = first_scores = np.empty(0, np.float32)
    if first_version:
        held_out = generator.permutation(fitted)[: max(1, round(0.1 * run.size))]
        first = fit(run, features, np.setdiff1d(fitted, held_out), seed)
        first_held_out, first_scores = predict(first, held_out), predict(first, new)
    return Scores(
        left_out=detector.good.scores,
        map_maxima=detector.good.map_maxima,
        good=scores[: len(new_good)],
        defective=scores[len(new_good) :],
        first_held_out=first_held_out,
        first_good=first_scores[: len(new_good)],
        first_defective=first_scores[len(new_good) :],
    )


def fit(run: Run, features: Features, pictures: Indices, seed: int) -> Detector:
    """Fit a detector to pictures by index."""
    detector: Detector = CACHED[run.method](
        **run.options, weights="none", device="cpu", seed=seed, input_size=features.input_size
    )
    detector.features = features
    with torch.inference_mode():
        left_out = detector.fit_features(batches(pictures), len(pictures))
        detector.good = detector.good_scores(left_out)
    return detector


def predict(detector: Detector, pictures: Indices) -> Values:
    """Score pictures by index: (n,)."""
    with torch.inference_mode():
        return torch.cat([detector(batch)[0] for batch in batches(pictures)]).numpy()


def batches(pictures: Indices) -> Iterator[Tensor]:
    """Yield indices, a few at a time."""
    yield from torch.split(torch.from_numpy(pictures), 25)


def print_header(
    method: str, options: dict[str, Any], splits: int, planted: float, first_version: int
) -> None:
    """Print what was run, and the head of the table."""
    settings = "".join(f", {key} {value}" for key, value in options.items())
    spoilt = f", {planted:.0%} of the fitted pictures defective" if planted else ""
    click.echo(
        f"\n{method}{settings}: {splits} splits, {min(first_version, splits)} of them with the "
        f"first version's rule as well{spoilt}; shares in percent\n"
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
    rules = (f"{RATES[0]:.0%}", f"{RATES[1]:.0%}", "first version")
    shares = [np.mean(tally.alarms.get(rule, np.nan)) for rule in rules]
    shares += [np.mean(tally.missed.get(rule, np.nan)) for rule in rules]
    shares += [np.mean(p_values <= 0.05), np.mean(p_values <= 0.01)]
    shares += [np.mean(tally.listed or np.nan)]
    return np.array(shares, dtype=np.float64)


if __name__ == "__main__":
    main()
