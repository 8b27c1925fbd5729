"""Iterations per second of the greedy coreset against the usual loops, on the same features.

python benchmarks/coreset.py [--features FILE.npy] [--device cuda] [--dtype float16]

The loops do the same work for every pick, so a few picks measure them. Ours is timed over the
first picks, where the batches are short, and over three times as many.
"""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from edge_ad.models.coreset import coreset_memory_bytes, greedy_coreset

Measure = Callable[[Tensor, Tensor], Tensor]
CLUSTERS = 60
REFERENCE = "`(X - c).square().sum()` per pick"


def clustered(n: int, width: int, seed: int) -> Tensor:
    """Draw a mixture of Gaussians with unequal shares and spreads: (n, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(CLUSTERS, width, generator=generator)
    share = torch.rand(CLUSTERS, generator=generator) ** 3
    spread = 0.2 + 0.6 * torch.rand(CLUSTERS, generator=generator)
    label = torch.multinomial(share, n, replacement=True, generator=generator)
    return torch.randn(n, width, generator=generator).mul_(spread[label, None]).add_(means[label])


def by_subtraction(features: Tensor, pick: Tensor) -> Tensor:
    """The definition: ours has to pick the same to the last bit."""
    return (features - features[pick]).square().sum(1)


def by_norm(features: Tensor, pick: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.norm(features - features[pick], dim=1)
    return distance


def by_cdist(features: Tensor, pick: Tensor) -> Tensor:
    return torch.cdist(features, features[pick])[:, 0]


class ByProduct:
    """One matrix-vector product a pick, the squared norms computed beforehand."""

    def __init__(self, features: Tensor) -> None:
        self.norms = features.square().sum(1)

    def __call__(self, features: Tensor, pick: Tensor) -> Tensor:
        product = torch.mv(features, features[pick[0]])
        return torch.add(self.norms, product, alpha=-2).add_(self.norms[pick])


def loop(features: Tensor, first: Tensor, count: int, measure: Measure) -> Tensor:
    """Greedy k-centre, one pass over all features for each pick."""
    nearest = torch.full((len(features),), torch.inf, device=features.device)
    picks = [first]
    for _ in range(count - 1):
        torch.minimum(nearest, measure(features, picks[-1]), out=nearest)
        nearest.index_fill_(0, picks[-1], -1)
        picks.append(nearest.argmax(keepdim=True))
    return torch.cat(picks)


def seconds(work: Callable[[], Tensor]) -> tuple[float, list[int]]:
    """Time work, and fetch its picks (which waits for a GPU)."""
    start = time.perf_counter()
    picks = work().tolist()
    return time.perf_counter() - start, picks


def agreement(expected: list[int], picks: list[int]) -> str:
    """Say how many picks of a loop are those of ours."""
    for i, (one, other) in enumerate(zip(expected, picks, strict=False)):
        if one != other:
            return f"first {i} of {len(picks)} (its rounding differs)"
    return f"all {len(picks)}"


def measure_all(features: Tensor, picks: int, loop_picks: int, rounds: int) -> list[list[str]]:
    """Time every way in each round: rows of name, iterations/s, ratio, agreement."""
    plain = features.float()
    loops: dict[str, Measure] = {
        REFERENCE: by_subtraction,
        "`norm(X - c)` per pick": by_norm,
        "`torch.cdist` per pick": by_cdist,
        "matrix-vector product per pick": ByProduct(plain),
    }
    start = torch.tensor(
        seconds(lambda: greedy_coreset(features, 1).picks)[1], device=features.device
    )
    rates: dict[str, list[float]] = {}
    agree: dict[str, str] = {}
    for _ in range(rounds):
        early, _ = seconds(lambda: greedy_coreset(features, picks).picks)
        late, ours = seconds(lambda: greedy_coreset(features, 3 * picks).picks)
        rates.setdefault(f"ours, picks 1-{picks}", []).append(picks / early)
        rates.setdefault(f"ours, picks 1-{3 * picks}", []).append(3 * picks / late)
        for name, measure in loops.items():
            took, theirs = seconds(lambda m=measure: loop(plain, start, loop_picks, m))  # type: ignore[misc]
            rates.setdefault(name, []).append((loop_picks - 1) / took)
            agree[name] = agreement(ours, theirs)
    if not agree[REFERENCE].startswith("all"):
        raise click.ClickException(f"picks differ from the plain loop's: {agree[REFERENCE]}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    slowest_ours = min(rate for name, rate in medians.items() if name not in loops)
    return [
        [
            name,
            f"{rate:.1f}",
            f"{slowest_ours / rate:.1f}" if name in loops else "",
            agree.get(name, ""),
        ]
        for name, rate in medians.items()
    ]


@click.command(help=__doc__)
@click.option("--features", type=click.Path(path_type=Path), help="float .npy of shape (N, D).")
@click.option("--rows", default=150_000, show_default=True)
@click.option("--width", default=128, show_default=True)
@click.option(
    "--picks", default=1000, show_default=True, help="Timed so many, and 3 times as many."
)
@click.option("--loop-picks", default=31, show_default=True, help="Picks of the slow loops.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32")
@click.option("--seed", default=0, show_default=True)
def main(
    features: Path | None,
    rows: int,
    width: int,
    picks: int,
    loop_picks: int,
    rounds: int,
    threads: int,
    device: str,
    dtype: str,
    seed: int,
) -> None:
    torch.set_num_threads(threads)
    data = torch.from_numpy(np.load(features)) if features else clustered(rows, width, seed)
    data = data.to(device, getattr(torch, dtype))
    n, d = data.shape
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    table = measure_all(data, picks, loop_picks, rounds)
    print(f"N {n}, D {d}, {dtype}, {device} ({where}), {threads} threads")
    print(f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}")
    print(f"features: {features.name if features else 'mixture of Gaussians'}; medians of {rounds}")
    memory = coreset_memory_bytes(n, d, data.dtype) / 2**20
    print(f"estimated memory: {memory:.0f} MiB (features included)\n")
    print("| way | iterations/s | ours is faster by | same picks as ours |\n|---|---|---|---|")
    for row in table:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
