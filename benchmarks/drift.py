"""Drift alarms and calibration at the device: false alarms, delays, memory and cost.

python benchmarks/drift.py --data-root DIR --results RESULTS > benchmarks/drift.md

RESULTS/CLASS/padim holds a model file that was fitted on other pictures than DIR/CLASS/test/good.
Those, as they are and with more light, blur or a shift, are what passes the camera: long streams
are drawn from their scores and measures, with replacement. Every second good picture stands in for
the leave-one-out scores of the training, the others make the streams.
"""

import random
import statistics
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad_runtime import CapturedFrame, Frame, Result, Scorer, list_pictures, read_frame
from edge_ad_runtime.cameras.base import Prepared
from edge_ad_runtime.model.calibration import Calibration, calibrate
from edge_ad_runtime.model.device_calibration import combine
from edge_ad_runtime.model.image import appearance
from edge_ad_runtime.stream.drift import (
    ALARM_CAPITAL,
    MEASURES,
    REFERENCE_SIZE,
    Drift,
    ExchangeabilityTest,
    Reference,
    measured,
)

MOST_GOOD, MOST_DEFECTIVE = 110, 40
STREAMS, PARTS, SEEDS = 48, 20_000, 6
CHANGES = ("brightness +15 %", "blur, sigma 3 px", "blur, 3 x 3 px", "shift 2 %")

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What passes the camera of a class: (n, measures) for each kind.

    Attributes:
        good: good parts.
        changed: the same ones under each change.
        defects: defective parts.
        training: scores of other good parts.
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


def score_class(name: str, data_root: Path, results: Path) -> Scored:
    """Score the pictures of a class under every change."""
    (model,) = (results / name / "padim").glob("*.onnx")
    scorer = Scorer(model, device="cpu", threads=1)
    pictures = list_pictures(data_root / name / "test")
    good = [path for path in pictures if path.parent.name == "good"][:MOST_GOOD]
    defective = [path for path in pictures if path.parent.name != "good"][:MOST_DEFECTIVE]
    frames = [read_frame(path) for path in good]

    def look(batch: list[Frame]) -> tuple[Values, Values]:
        rows, maxima = [], []
        for frame in batch:
            image = scorer.prepare(frame)
            found, seen = scorer.score_prepared([image])[0], appearance(image)
            rows.append(measured(seen, found.score))
            maxima.append(float(found.anomaly_map.max()))
        return np.asarray(rows), np.asarray(maxima)

    scored = {"unchanged": look(frames)}
    for kind in CHANGES:
        scored[kind] = look([change(kind, frame) for frame in frames])
    known, known_maxima = (values[::2] for values in scored["unchanged"])
    return Scored(
        good=scored["unchanged"][0][1::2],
        changed={kind: scored[kind][0][1::2] for kind in CHANGES},
        defects=look([read_frame(path) for path in defective])[0],
        training=calibrate(known[:, 0], known_maxima, rate=0.01),
        maxima={kind: maxima[1::2] for kind, (_, maxima) in scored.items()},
    )


def drawn(rng: np.random.Generator, values: Values, count: int) -> Values:
    """Draw parts with replacement."""
    return values[rng.integers(0, len(values), count)]


def tests(
    scored: Scored, seed: int, *, size: int = REFERENCE_SIZE, floor: float | None = None
) -> list[ExchangeabilityTest]:
    """Return the tests as a stream starts them."""
    generator = random.Random(seed)
    named = {} if floor is None else {"floor": floor}
    first = list(scored.training.scores)[: max(0, size - 1)]
    return [
        ExchangeabilityTest(
            Reference(first if measure == "score" else (), generator, size), **named
        )
        for measure in MEASURES
    ]


def first_alarm(
    running: list[ExchangeabilityTest], parts: Values, measures: Sequence[str] = MEASURES
) -> tuple[int, str] | None:
    """Return after how many parts which measure alarms; parts (n, measures)."""
    for number, row in enumerate(parts.tolist(), start=1):
        for test, measure, value in zip(running, measures, row, strict=True):
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
    print(f"\n## {STREAMS} unchanged streams of {PARTS:,} parts, {len(MEASURES)} measures each\n")
    print("| reference | streams that alarmed | largest capital |\n|---|---|---|")
    for size, label in ((256, "256"), (4096, "**4,096**")):
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
    """After how many parts a change is reported, and by which measure."""
    print(f"\n## Parts until a change is reported ({SEEDS} streams each)\n")
    print("| class | change | after 300 parts | after 5,000 parts | first measure |")
    print("|---|---|---|---|---|")
    for name, scored in classes.items():
        for kind in CHANGES:
            cells, measures = [], []
            for before in (300, 5_000):
                delays: list[int | None] = []
                for seed in range(SEEDS):
                    rng = np.random.default_rng(seed)
                    running = tests(scored, seed)
                    first_alarm(running, drawn(rng, scored.good, before))
                    found = first_alarm(running, drawn(rng, scored.changed[kind], 500))
                    delays.append(None if found is None else found[0])
                    measures.append("none" if found is None else found[1])
                cells.append(spread(delays))
            print(f"| {name} | {kind} | {' | '.join(cells)} | {statistics.mode(measures)} |")


def print_floors(classes: dict[str, Scored]) -> None:
    """What the floor of the capital is good for: the light changes after a short or a long time."""
    print("\nBrightness +15 %, on brightness alone, with and without the capital's floor:\n")
    print("| class | parts before | no floor | **floor 0.005** | floor 1 |\n|---|---|---|---|---|")
    for name, scored in classes.items():
        for before in (300, 3_000, 20_000):
            cells = []
            for floor in (0.0, 0.005, 1.0):
                delays = []
                for seed in range(SEEDS // 2):
                    rng = np.random.default_rng(seed)
                    one = [tests(scored, seed, floor=floor)[1]]
                    first_alarm(one, drawn(rng, scored.good, before)[:, 1:2], ["brightness"])
                    changed = drawn(rng, scored.changed["brightness +15 %"], 500)
                    found = first_alarm(one, changed[:, 1:2], ["brightness"])
                    delays.append(None if found is None else found[0])
                cells.append(spread(delays))
            print(f"| {name} | {before:,} | {' | '.join(cells)} |", flush=True)


def print_defects(classes: dict[str, Scored]) -> None:
    """How often defects that come at random alarm."""
    print(f"\n## Defects at random in {SEEDS} streams of 5,000 parts: streams that alarmed\n")
    print("| class | 1 % | 3 % | 5 % |\n|---|---|---|---|")
    for name, scored in classes.items():
        cells = []
        for share in (0.01, 0.03, 0.05):
            alarms = 0
            for seed in range(SEEDS):
                rng = np.random.default_rng(seed)
                parts = drawn(rng, scored.good, 5_000)
                bad = rng.random(5_000) < share
                parts[bad] = drawn(rng, scored.defects, int(bad.sum()))
                alarms += first_alarm(tests(scored, seed), parts) is not None
            cells.append(f"{alarms} of {SEEDS}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_slow(classes: dict[str, Scored]) -> None:
    """How far the light has crept when it is reported: a week at a part a second."""
    week = 604_800
    print("\n## Light that falls by 15 % over a week of one part a second\n")
    print("| class | natural spread of the brightness | reported after | the light has fallen by |")
    print("|---|---|---|---|")
    for name, scored in classes.items():
        rng = np.random.default_rng(0)
        test, found = tests(scored, 0)[1], 0
        light = scored.good[:, 1]
        for start in range(0, week, 10_000):
            values = rng.choice(light, 10_000) * (
                1 - 0.15 * np.arange(start, start + 10_000) / week
            )
            alarm = first_alarm([test], values[:, np.newaxis], ["brightness"])
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
    print("\n## `edge-ad calibrate` with 20 parts, 1 %: false alarms / missed defects (limit)\n")
    print("| class | change | limit of the training | camera's parts alone | both |")
    print("|---|---|---|---|---|")
    for kind in ("unchanged", "brightness +15 %"):
        rates, misses = [], []
        for name, scored in classes.items():
            values = scored.good if kind == "unchanged" else scored.changed[kind]
            rows = list(calibrations(values[:, 0], scored.maxima[kind], scored.training))
            limits = np.asarray([row[1] for row in rows])
            rates.append(np.mean([row[0] for row in rows], axis=0))
            # Defects were scored in unchanged light only.
            missed = (scored.defects[:, 0] < limits[:, :, np.newaxis]).mean(axis=(0, 2))
            misses.append(missed if kind == "unchanged" else np.full(3, np.nan))
            cells = zip(rates[-1], misses[-1], limits.mean(axis=0), strict=True)
            print(f"| {name} | {kind} | {' | '.join(shown(*cell) for cell in cells)} |")
        means = zip(np.mean(rates, axis=0), np.mean(misses, axis=0), strict=True)
        print(f"| **mean** | {kind} | {' | '.join(shown(*cell) for cell in means)} |")


def shown(rate: float, missed: float, limit: float | None = None) -> str:
    """Write a cell of that table."""
    text = f"{100 * rate:.1f} %" + ("" if np.isnan(missed) else f" / {100 * missed:.0f} %")
    return text if limit is None else f"{text} ({limit:.1f})"


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
@click.option("--results", required=True, type=click.Path(path_type=Path))
@click.option("--classes", default="bottle,transistor,commutator", show_default=True)
def main(data_root: Path, results: Path, classes: str) -> None:
    """Print all tables."""
    names = classes.split(",")
    print("# Drift and calibration at the device", flush=True)
    print_tables({name: score_class(name, data_root, results) for name in names})
    (model,) = (results / names[0] / "padim").glob("*.onnx")
    print_cost(model, data_root / names[0] / "test")


def print_tables(scored: dict[str, Scored]) -> None:
    """Print everything but the times."""
    print_unchanged(scored)
    print_delays(scored)
    print_floors(scored)
    print_defects(scored)
    print_slow(scored)
    print_calibration(scored)
    print_memory(next(iter(scored.values())))


if __name__ == "__main__":
    main()
