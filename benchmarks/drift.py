"""Drift alarms and calibration at the device: false alarms, delays, memory and cost.

python benchmarks/drift.py --data-root DIR > benchmarks/drift.md

PaDiM is fitted on 100 good pictures of each class. The other good pictures, as they are and with
more light, blur or a shift, are what passes the camera: long streams are drawn from their scores,
brightness and sharpness, with replacement. The reference starts with the leave-one-out scores of
the fit, as in a model file.
"""

import random
import statistics
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data import Dataset, choose_input_size, load_category
from edge_ad.models import PaDiM
from edge_ad_runtime import CapturedFrame, Frame, Result, Scorer, list_pictures, read_frame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.model.appearance import appearance
from edge_ad_runtime.model.calibration import Calibration
from edge_ad_runtime.model.device_calibration import combine
from edge_ad_runtime.stream.drift import (
    ALARM_CAPITAL,
    REFERENCE_SIZE,
    Drift,
    ExchangeabilityTest,
    Reference,
)

MEASURES = ("score", "brightness", "sharpness")
FITTED = 100
STREAMS, PARTS = 48, 20_000
CHANGES = ("brightness +15 %", "blur, sigma 3 px", "blur, 3 x 3 px", "shift 2 %")

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What passes the camera of a class: (n, 3) for each kind, a column for each measure.

    Attributes:
        good: good parts that the fit has not seen.
        changed: the same ones under each change.
        defects: defective parts.
        training: leave-one-out scores of the fit.
        maxima: largest map values of good parts, by kind.
    """

    good: Values
    changed: dict[str, Values]
    defects: Values
    training: Calibration
    maxima: dict[str, Values]


def change(kind: str, frame: Frame) -> Frame:
    """Return a picture as the camera sees it after a change."""
    if kind == "brightness +15 %":
        return np.asarray(np.clip(frame * 1.15, 0, 255), dtype=np.uint8)
    if kind == "blur, sigma 3 px":
        return np.asarray(cv2.GaussianBlur(frame, (0, 0), 3), dtype=np.uint8)
    if kind == "blur, 3 x 3 px":
        return np.asarray(cv2.blur(frame, (3, 3)), dtype=np.uint8)
    width = frame.shape[1]
    moved = round(0.02 * width)
    wider = cv2.copyMakeBorder(frame, 0, 0, moved, 0, cv2.BORDER_REPLICATE)
    return np.asarray(wider[:, :width], dtype=np.uint8)


def score_class(name: str, data_root: Path) -> Scored:
    """Fit on some good pictures and score everything else."""
    category = load_category(name, data_root)
    order = np.random.default_rng(0).permutation(len(category.train)).tolist()
    samples = [category.train[index] for index in order]
    size = choose_input_size(category.train)
    detector = PaDiM(input_size=size).fit(Dataset(samples[:FITTED]))
    if detector.good is None:
        raise click.ClickException("the fit gives no leave-one-out scores")
    tests = list(category.test)
    good = samples[FITTED:] + [sample for sample in tests if not sample.anomalous]
    frames = [read_frame(sample.path) for sample in good]
    defective = [read_frame(sample.path) for sample in tests if sample.anomalous]

    def look(pictures: list[Frame]) -> tuple[Values, Values]:
        rows, maxima = [], []
        for start in range(0, len(pictures), 16):
            batch = pictures[start : start + 16]
            for frame, found in zip(batch, detector.predict(batch), strict=True):
                seen = appearance(detector.preprocessing.apply(frame))
                rows.append((found.score, seen.brightness, seen.log_sharpness))
                maxima.append(float(found.anomaly_map.max()))
        return np.asarray(rows), np.asarray(maxima)

    unchanged, plain_maxima = look(frames)
    changed, maxima = {}, {"unchanged": plain_maxima}
    for kind in CHANGES:
        changed[kind], maxima[kind] = look([change(kind, frame) for frame in frames])
    return Scored(
        good=unchanged,
        changed=changed,
        defects=look(defective)[0],
        training=detector.good.calibrate(0.01),
        maxima=maxima,
    )


def drawn(rng: np.random.Generator, values: Values, count: int) -> Values:
    """Draw parts with replacement."""
    return values[rng.integers(0, len(values), count)]


def tests(
    scored: Scored, seed: int, *, size: int = REFERENCE_SIZE, floor: float | None = None
) -> list[ExchangeabilityTest]:
    """Return the three tests as a stream starts them."""
    generator = random.Random(seed)
    named = {} if floor is None else {"floor": floor}
    first = list(scored.training.scores)[: max(0, size - 1)]
    return [
        ExchangeabilityTest(
            Reference(first if measure == "score" else (), generator, size), **named
        )
        for measure in MEASURES
    ]


def first_alarm(running: list[ExchangeabilityTest], parts: Values) -> tuple[int, str] | None:
    """Return after how many parts which measure alarms."""
    for number, row in enumerate(parts.tolist(), start=1):
        for test, measure, value in zip(running, MEASURES, row, strict=True):
            if test.update(value) >= ALARM_CAPITAL:
                return number, measure
    return None


def spread(found: list[int | None]) -> str:
    """Write delays as a range; `-` stands for a change that was not found."""
    known = [delay for delay in found if delay is not None]
    if not known:
        return "-"
    missed = len(found) - len(known)
    text = f"{min(known)} to {max(known)}"
    return text + (f", {missed} of {len(found)} not found" if missed else "")


def print_unchanged(classes: dict[str, Scored]) -> None:
    """How often a stream in which nothing changes alarms, by the size of the reference."""
    print(f"\n## {STREAMS} unchanged streams of {PARTS:,} parts, three measures each\n")
    print("| reference | streams that alarmed | largest capital |\n|---|---|---|")
    for size, label in ((200, "200"), (1024, "1,024"), (4096, "**4,096**"), (10**9, "all parts")):
        alarms, capital = 0, 0.0
        for index in range(STREAMS):
            scored = list(classes.values())[index % len(classes)]
            running = tests(scored, index, size=size)
            parts = drawn(np.random.default_rng(index), scored.good, PARTS)
            alarmed = False
            for row in parts.tolist():
                for test, value in zip(running, row, strict=True):
                    capital = max(capital, test.update(value))
                    alarmed = alarmed or test.capital >= ALARM_CAPITAL
                if alarmed:
                    break
            alarms += alarmed
        print(f"| {label} | {alarms} of {STREAMS} | {capital:.0f} |", flush=True)


def print_delays(classes: dict[str, Scored]) -> None:
    """After how many parts a change is told, and by which measure."""
    print("\n## Parts until a change is told (12 streams each)\n")
    print("| class | change | after 300 parts | after 10,000 parts | first measure |")
    print("|---|---|---|---|---|")
    for name, scored in classes.items():
        for kind in CHANGES:
            cells, measures = [], []
            for before in (300, 10_000):
                delays: list[int | None] = []
                for seed in range(12):
                    rng = np.random.default_rng(seed)
                    running = tests(scored, seed)
                    first_alarm(running, drawn(rng, scored.good, before))
                    found = first_alarm(running, drawn(rng, scored.changed[kind], 500))
                    delays.append(None if found is None else found[0])
                    measures.append("none" if found is None else found[1])
                cells.append(spread(delays))
            print(f"| {name} | {kind} | {' | '.join(cells)} | {statistics.mode(measures)} |")
    print("\nBrightness +15 %, on brightness alone, with and without the capital's floor:\n")
    print("| class | parts before | no floor | **floor 0.005** | floor 1 |\n|---|---|---|---|---|")
    for name, scored in classes.items():
        for before in (300, 3_000, 20_000):
            cells = []
            for floor in (0.0, 0.005, 1.0):
                delays = []
                for seed in range(6):
                    rng = np.random.default_rng(seed)
                    one = [tests(scored, seed, floor=floor)[1]]
                    first_alarm(one, drawn(rng, scored.good, before)[:, 1:2])
                    changed = drawn(rng, scored.changed["brightness +15 %"], 500)
                    found = first_alarm(one, changed[:, 1:2])
                    delays.append(None if found is None else found[0])
                cells.append(spread(delays))
            print(f"| {name} | {before:,} | {' | '.join(cells)} |", flush=True)


def print_defects(classes: dict[str, Scored]) -> None:
    """How often defects that come at random alarm."""
    print("\n## Defects at random in 12 streams of 5,000 parts: streams that alarmed\n")
    print("| class | 1 % | 3 % | 5 % |\n|---|---|---|---|")
    for name, scored in classes.items():
        cells = []
        for share in (0.01, 0.03, 0.05):
            alarms = 0
            for seed in range(12):
                rng = np.random.default_rng(seed)
                parts = drawn(rng, scored.good, 5_000)
                bad = rng.random(5_000) < share
                parts[bad] = drawn(rng, scored.defects, int(bad.sum()))
                alarms += first_alarm(tests(scored, seed), parts) is not None
            cells.append(f"{alarms} of 12")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_slow(classes: dict[str, Scored]) -> None:
    """How far the light has crept when it is told: a week at a part a second."""
    week = 604_800
    print("\n## Light that falls by 15 % over a week of one part a second\n")
    print("| class | natural spread of the brightness | told after | the light has fallen by |")
    print("|---|---|---|---|")
    for name, scored in classes.items():
        rng = np.random.default_rng(0)
        test, found = tests(scored, 0)[1], 0
        light = scored.good[:, 1]
        for start in range(0, week, 10_000):
            values = rng.choice(light, 10_000) * (
                1 - 0.15 * np.arange(start, start + 10_000) / week
            )
            alarm = first_alarm([test], values[:, np.newaxis])
            if alarm is not None:
                found = start + alarm[0]
                break
        told = f"{found / 3600:.1f} h | {15 * found / week:.2f} %" if found else "never | -"
        print(f"| {name} | {100 * light.std() / light.mean():.1f} % | {told} |", flush=True)


def print_memory(scored: Scored) -> None:
    """Bytes that the tests hold as the stream goes on."""
    parts = drawn(np.random.default_rng(0), scored.good, 100_000)
    tracemalloc.start()
    running, sizes = tests(scored, 0), []
    for start in range(0, 100_000, 25_000):
        first_alarm(running, parts[start : start + 25_000])
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    kilobytes = ", ".join(f"{size / 1000:.0f}" for size in sizes)
    print(f"\n## Memory\n\nKB after 25,000, 50,000, 75,000 and 100,000 parts: {kilobytes}.")


def score_into(scorer: Scorer, image: Frame, found: list[Result]) -> None:
    """Score a prepared frame."""
    found.extend(scorer.score_prepared([image]))


def print_cost(model: Path, pictures: Path) -> None:
    """What a part, a standing part and its regions cost beside one inference, timed in turns."""
    scorer = Scorer(model, device="cpu", threads=2).with_threshold(-1e9)
    frames = [read_frame(path) for path in list_pictures(pictures)[:32]]
    prepared = [scorer.prepare(frame) for frame in frames]
    drift = Drift(lambda: scorer.info)
    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        started = perf_counter()
        work()
        times.setdefault(name, []).append((perf_counter() - started) * 1e6)

    for number in range(400):
        image = prepared[number % len(prepared)]
        made = Prepared(frame=image, preprocessing=scorer.preprocessing, milliseconds=0.0)
        captured = CapturedFrame(number=number, frame=image, camera="c", prepared=made)
        found: list[Result] = []
        timed("one inference", partial(score_into, scorer, image, found))
        timed("drift: a new part", partial(drift.update, captured, found[0]))
        timed("drift: the same part once more", partial(drift.update, captured, found[0]))
        timed("regions of an anomalous part", partial(getattr, found[0], "regions"))
    print(f"\n## Time, {model.name}, 2 threads, medians of 400\n")
    print("| what | us | share of an inference |\n|---|---|---|")
    inference = statistics.median(times["one inference"])
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.0f} | {100 * middle / inference:.2f} % |")


def print_calibration(classes: dict[str, Scored]) -> None:
    """False alarms after a change, at a promise of 1 %, with 20 parts of the camera."""
    print("\n## `edge-ad calibrate` with 20 parts, promise 1 %: false alarms (limit)\n")
    print("| class | change | limit of the training | camera's parts alone | both |")
    print("|---|---|---|---|---|")
    totals: dict[str, list[list[float]]] = {}
    for name, scored in classes.items():
        for kind in ("unchanged", "brightness +15 %"):
            values = scored.good if kind == "unchanged" else scored.changed[kind]
            rows = list(calibrations(values[:, 0], scored.maxima[kind], scored.training))
            rates, limits = (
                np.mean([row[0] for row in rows], 0),
                np.mean([row[1] for row in rows], 0),
            )
            totals.setdefault(kind, []).append(rates.tolist())
            cells = [f"{100 * r:.1f} % ({x:.1f})" for r, x in zip(rates, limits, strict=True)]
            print(f"| {name} | {kind} | {' | '.join(cells)} |")
    for kind, found in totals.items():
        cells = [f"{100 * rate:.1f} %" for rate in np.mean(found, 0)]
        print(f"| **mean** | {kind} | {' | '.join(cells)} |")


def calibrations(
    scores: Values, maxima: Values, training: Calibration
) -> Iterator[tuple[list[float], list[float]]]:
    """Yield false alarms and limits of three rules over 40 choices of 20 parts."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        order = rng.permutation(len(scores))
        chosen, fresh = order[:20], order[20:]
        limits = [training.limit(0.01)]
        for known in (None, training):
            made = combine(known, scores[chosen], maxima[chosen], rate=0.01)
            limits.append(made.limit())
        yield [float((scores[fresh] >= limit).mean()) for limit in limits], limits


@click.command()
@click.option("--data-root", required=True, type=click.Path(path_type=Path))
@click.option("--classes", default="bottle,transistor,commutator", show_default=True)
@click.option("--model", type=click.Path(path_type=Path), help="For the times: a model file.")
@click.option("--only-times", is_flag=True, help="Nothing but the times.")
def main(data_root: Path, classes: str, model: Path | None, only_times: bool) -> None:
    """Print all tables."""
    names = classes.split(",")
    if not only_times:
        print_tables({name: score_class(name, data_root) for name in names})
    if model is not None:
        print_cost(model, data_root / names[0] / "test")


def print_tables(scored: dict[str, Scored]) -> None:
    """Print everything but the times."""
    print("# Drift and calibration at the device\n")
    print(f"    python {' '.join(sys.argv)}")
    print_unchanged(scored)
    print_delays(scored)
    print_defects(scored)
    print_slow(scored)
    print_calibration(scored)
    print_memory(next(iter(scored.values())))


if __name__ == "__main__":
    main()
