"""edge-ad through its public Python interface: train, export, Scorer, run_stream."""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters.protocol import (
    Cost,
    Fitted,
    Map,
    Request,
    Verdict,
    cost,
    large_frame,
    peak_mib,
    run,
    save_maps,
    serve,
    test_pictures,
)


def fit(request: Request) -> Fitted:
    """Train, export and score the test pictures, once with each."""
    from edge_ad.config import CONFIGS
    from edge_ad.data import load_category
    from edge_ad.models import create
    from edge_ad.runs import Run, model_file
    from edge_ad.train import train
    from edge_ad_export.exporter import ExportOptions, export
    from edge_ad_runtime import Scorer, read_frame

    staged, folder = Path(request["category"]), Path(request["folder"])
    config = CONFIGS[request["method"]]
    options: dict[str, Any] = {"device": "cpu", **config.preset(request["preset"])}
    if request["input_size"] is not None:
        options["input_size"] = tuple(request["input_size"])
    if request["method"] in ("patchcore", "fusion"):
        options["coreset"] = request["share"]
    detector = create(config(**options))
    spent, peak, picks = _time_fit(detector)
    category = load_category(staged.name, staged.parent)
    run_: Run = train(detector, category, folder)
    found = Fitted(fit=spent[0], peak_mib=peak[0], picks=picks[0] if picks else None)
    maps: dict[str, Map] = {}
    for sample, prediction in detector.predictions(category.test, "score"):
        name = str(sample.path.relative_to(staged))
        anomalous = prediction.score >= run_.metrics.threshold
        found.training[name] = Verdict(prediction.score, anomalous)
        maps[name] = prediction.anomaly_map
    save_maps(folder, maps)
    exported = export(run_.folder, options=ExportOptions(with_backbone=True))
    found.model = found.graph = str(model_file(run_.folder).relative_to(folder))
    scorer = Scorer(exported.path, device="cpu")
    for path in test_pictures(staged):
        result = scorer.score(read_frame(path))
        found.deployed[str(path.relative_to(staged))] = Verdict(result.score, result.anomalous)
    return found


def _time_fit(detector: Any) -> tuple[list[Cost], list[float], list[tuple[int, float]]]:
    """Measure `detector.fit` and the choice of its memory, and leave them as they are."""
    memory_bank: Any = importlib.import_module("edge_ad.models.memory_bank")

    spent: list[Cost] = []
    peak: list[float] = []
    picks: list[tuple[int, float]] = []
    fit_, choose = detector.fit, memory_bank.greedy_coreset

    def timed_fit(pictures: Any) -> Any:
        with cost() as found:
            result = fit_(pictures)
        spent.append(found)
        peak.append(peak_mib())
        return result

    def timed_coreset(*arguments: Any, **options: Any) -> Any:
        with cost() as found:
            result = choose(*arguments, **options)
        picks.append((len(result[0] if isinstance(result, tuple) else result), found.wall_s))
        return result

    detector.fit, memory_bank.greedy_coreset = timed_fit, timed_coreset
    return spent, peak, picks


def frame(request: Request) -> None:
    """Take a frame in memory to its verdict, again and again."""
    from edge_ad_runtime import Scorer

    bgr = large_frame(test_pictures(Path(request["category"]))[0], request["side"])
    model = Path(request["folder"]) / request["model"]
    scorer = Scorer(model, device="cpu", threads=request["threads"])
    serve(lambda: scorer.score(bgr).anomalous)


def start(request: Request) -> dict[str, float]:
    """Import what a device needs, load the model file, and score one picture."""
    started = time.perf_counter()
    from edge_ad_runtime import Scorer, read_frame

    imported = time.perf_counter() - started
    scorer = Scorer(Path(request["folder"]) / request["model"], device="cpu")
    result = scorer.score(read_frame(test_pictures(Path(request["category"]))[0]))
    return {"import_s": imported, "rss_mib": peak_mib(), "score": result.score}


def video(request: Request) -> None:
    """Become `edge-ad stream` on a video file or the URL of a camera; the driver counts lines."""
    command = [sys.executable, "-c", "from edge_ad.cli import main; main()", "stream"]
    command += ["--model", str(Path(request["folder"]) / request["model"]), "--device", "cpu"]
    os.execv(sys.executable, [*command, *request["options"]])


if __name__ == "__main__":
    run({"fit": fit, "frame": frame, "start": start, "video": video})
