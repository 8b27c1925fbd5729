"""The tables that come from training: accuracy, its cost, and what is left of it when deployed."""

from statistics import fmean
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from benchmarks.peers.bench import Bench, Column, Contender, Row, Table
from benchmarks.peers.pictures import StagedClass


def accuracy(bench: Bench) -> Table:
    """Image AUROC, pixel AUROC and PRO: means over the classes, and image AUROC of each."""
    bench.fit_all()
    names = [staged.name for staged in bench.classes]
    columns = [
        Column("image AUROC, mean", 1),
        Column("pixel AUROC, mean", 1),
        Column("PRO, mean", 1),
    ]
    table = Table(
        "Accuracy",
        f"ROC-AUC and per-region overlap (up to 30 % false positives) in percent, after training "
        f"on at most {bench.pictures} good pictures. All maps were evaluated by the same code. The "
        "means of the pixel figures are over the classes that have masks.",
        columns + [Column(f"image, {name}", 1) for name in names],
    )
    for contender in bench.contenders:
        found = dict((staged.name, fitted) for staged, fitted in bench.all_fitted(contender))
        figures = [found.get(name, {}).get("accuracy", {}) for name in names]
        means = [_mean([one.get(kind) for one in figures]) for kind in ("image", "pixel", "pro")]
        per_class = [_percent(one.get("image")) for one in figures]
        if any(one.get("image") is None for one in figures):
            means = [None, None, None]  # a mean over fewer classes would be no comparison
        table.rows.append(Row(contender.name, [*means, *per_class], _errors(found)))
    return table


def training(bench: Bench) -> Table:
    """Wall and CPU time, peak memory and coreset picks a second, on the first class."""
    staged = bench.classes[0]
    table = Table(
        "Training",
        f"{staged.n_train} pictures of {staged.name}, from the files to a fitted detector, without "
        "scoring any test picture and without the export. The decision limit is in edge-ad's time "
        "(it comes from the same pictures); anomalib takes its limit from labelled test pictures "
        "afterwards, and AnomaVision has none.",
        [
            Column("wall, s", -1),
            Column("CPU, s", -1),
            Column("peak memory, MiB", -1, "{:.0f}"),
            Column("coreset picks a second", 1, "{:.0f}"),
        ],
    )
    for contender in bench.contenders:
        fitted = bench.fitted(contender, staged)
        if "error" in fitted:
            table.rows.append(Row(contender.name, [None] * 4, fitted["error"]))
            continue
        picks = fitted["picks"]
        rate = picks[0] / picks[1] if picks else None
        spent = fitted["fit"]
        figures = [spent["wall_s"], spent["cpu_s"], fitted["peak_mib"], rate]
        table.rows.append(Row(contender.name, figures))
    return table


def fidelity(bench: Bench) -> Table:
    """How far the deployed file's scores and verdicts are from those of the training framework."""
    table = Table(
        "Fidelity",
        "Scores and verdicts of the same test pictures in the training framework and in the "
        "deployed file (edge-ad: ONNX in ONNX Runtime through `Scorer`; anomalib: OpenVINO through "
        "`OpenVINOInferencer`; AnomaVision: ONNX through `ModelWrapper`), over all classes. The "
        "difference is a share of the range of the scores of a class. AnomaVision has no decision "
        "limit of its own: the limit with the best F1 on the scores in training was used.",
        [
            Column("largest score difference, % of the range", -1, "{:.2f}"),
            Column("changed verdicts", -1, "{:.0f}"),
            Column("pictures", 0, "{:.0f}"),
        ],
    )
    for contender in bench.contenders:
        found = list(bench.all_fitted(contender))
        compared = [_compare(staged, fitted) for staged, fitted in found if fitted.get("deployed")]
        note = _errors({staged.name: fitted for staged, fitted in found})
        if not compared:
            table.rows.append(Row(contender.name, [None] * 3, note))
            continue
        differences, changed, counts = zip(*compared, strict=True)
        figures = [100 * max(differences), float(sum(changed)), float(sum(counts))]
        table.rows.append(Row(contender.name, figures, note))
    return table


def mean_image_auroc(bench: Bench, contender: Contender) -> float | None:
    """Return the mean over all classes in percent; None where one is missing."""
    figures = [fitted.get("accuracy", {}) for _, fitted in bench.all_fitted(contender)]
    if len(figures) < len(bench.classes) or any(one.get("image") is None for one in figures):
        return None
    return _mean([one["image"] for one in figures])


def _compare(staged: StagedClass, fitted: dict[str, Any]) -> tuple[float, int, int]:
    """Return the largest difference, the number of changed verdicts, and of pictures."""
    training, deployed = fitted["training"], fitted["deployed"]
    names = sorted(training)
    before = np.array([training[name]["score"] for name in names])
    after = np.array([deployed[name]["score"] for name in names])
    difference = float(np.abs(after - before).max() / np.ptp(before))
    if training[names[0]]["anomalous"] is None:
        labels = [not staged.is_good(name) for name in names]
        precision, recall, limits = precision_recall_curve(labels, before)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        limit = limits[np.argmax(f1[:-1])]
        below = before[before < limit]
        # Half-way to the next score, so that the last digit of a score decides nothing.
        limit = (limit + below.max()) / 2 if len(below) else limit
        changed = int(((before >= limit) != (after >= limit)).sum())
    else:
        changed = sum(training[name]["anomalous"] != deployed[name]["anomalous"] for name in names)
    return difference, changed, len(names)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return 100 * fmean(known) if known else None


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _errors(found: dict[str, dict[str, Any]]) -> str:
    """Join what failed, each problem once."""
    problems: list[str] = []
    for fitted in found.values():
        problems += [fitted["error"]] if "error" in fitted else fitted["problems"]
    return "; ".join(dict.fromkeys(problems))
