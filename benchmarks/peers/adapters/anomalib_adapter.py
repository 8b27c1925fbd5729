"""anomalib as its documentation shows it: Engine, Folder, export to OpenVINO and to ONNX.

The backbone is timm's EfficientNet-Lite0 with the weights that edge-ad packages, and their
mean and deviation; everything else is left as anomalib sets it.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.adapters.protocol import (
    Cost,
    Fitted,
    Map,
    Request,
    Verdict,
    large_frame,
    peak_mib,
    run,
    save_maps,
    serve,
    test_pictures,
)

BACKBONE = "tf_efficientnet_lite0"
FINER, COARSER = ["blocks.1", "blocks.2", "blocks.4"], ["blocks.2", "blocks.4"]


def create(request: Request) -> Any:
    """Build the model of a method with the given weights."""
    from anomalib import models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    method, share = request["method"], request["share"]
    size = tuple(request["input_size"])
    half = [0.5, 0.5, 0.5]
    transform = Compose([Resize(size, antialias=True), Normalize(half, half)])
    shared = {"pre_processor": PreProcessor(transform=transform), "visualizer": False}
    timm = {"backbone": BACKBONE, "pre_trained": False, **shared}
    if method.startswith("padim"):
        model = models.Padim(layers=FINER, n_features=request["dims"], **timm)
    elif method == "patchcore":
        model = models.Patchcore(layers=COARSER, coreset_sampling_ratio=share, **timm)
    elif method == "mh_patchcore":
        rows = int(share * request["pictures"] * size[0] * size[1] // 64)
        model = models.MHPatchcore(layers=COARSER, memory_bank_size=rows, **timm)
    elif method == "rad":
        return models.Rad(visualizer=False)  # downloads a vision transformer
    elif method == "superadd":
        return models.SuperADD(visualizer=False)  # likewise
    else:
        raise ValueError(f"no method {method!r} here")
    state = torch.load(request["weights"], weights_only=True)
    network = model.model.feature_extractor.feature_extractor
    missing, _ = network.load_state_dict(state, strict=False)
    if missing:
        raise ValueError(f"the weights lack {missing[:3]}")
    return model


def fit(request: Request) -> Fitted:
    """Train, export and score the test pictures, once with each."""
    from anomalib.data import Folder
    from anomalib.engine import Engine

    category, folder = Path(request["category"]), Path(request["folder"])
    defects = [path for path in sorted((category / "test").iterdir()) if path.name != "good"]
    data = Folder(
        name=category.name,
        root=category,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[str(path.relative_to(category)) for path in defects],
        num_workers=0,
    )
    model = create(request)
    engine = Engine(accelerator="cpu", default_root_dir=folder, logger=False)
    stages = _time_stages(model)
    started = Cost(time.perf_counter(), time.process_time())
    engine.fit(model=model, datamodule=data)
    spent = Cost(stages["end"].wall_s - started.wall_s, stages["end"].cpu_s - started.cpu_s)
    found = Fitted(fit=spent, peak_mib=stages["peak_mib"])
    if hasattr(model.model, "memory_bank") and request["method"] == "patchcore":
        seconds = stages["end"].wall_s - stages["begin"].wall_s
        found.picks = (len(model.model.memory_bank), seconds)
    _score_in_training(model, engine, category, folder, found)
    _export(model, engine, request, found)
    return found


def _time_stages(model: Any) -> dict[str, Any]:
    """Note when the second stage of the fit (coreset or Gaussians) begins and ends.

    The validation that follows it sets anomalib's threshold from labelled test pictures.
    """
    stages: dict[str, Any] = {}
    original = model.fit

    def timed() -> None:
        stages["begin"] = Cost(time.perf_counter(), time.process_time())
        original()
        stages["end"] = Cost(time.perf_counter(), time.process_time())
        stages["peak_mib"] = peak_mib()

    model.fit = timed
    return stages


def _score_in_training(
    model: Any, engine: Any, category: Path, folder: Path, found: Fitted
) -> None:
    """Take verdicts from `Engine.predict`, and scores and maps before they are cut to 0..1."""
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader

    dataset = PredictDataset(path=category / "test")
    loader = DataLoader(dataset, batch_size=8, collate_fn=dataset.collate_fn)
    unclamped: list[Any] = []
    hook = model.model.register_forward_hook(lambda *call: unclamped.append(call[-1]))
    batches = engine.predict(model=model, dataloaders=loader, return_predictions=True)
    hook.remove()
    raw: dict[str, Any] = {}
    maps: dict[str, Map] = {}
    for batch, before in zip(batches, unclamped, strict=True):
        names = [str(Path(path).relative_to(category)) for path in batch.image_path]
        for index, name in enumerate(names):
            label = bool(_scalar(batch.pred_label[index]))
            found.training[name] = Verdict(_scalar(batch.pred_score[index]), label)
            raw[name] = np.float32(_scalar(before.pred_score[index]))
            maps[name] = before.anomaly_map[index].squeeze().numpy().astype(np.float32)
    save_maps(folder, maps)
    np.savez(folder / "scores.npz", **raw)


def _export(model: Any, engine: Any, request: Request, found: Fitted) -> None:
    """Write the OpenVINO file for anomalib's inferencer, and an ONNX file of one picture."""
    import cv2
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    folder, size = Path(request["folder"]), tuple(request["input_size"])
    options: dict[str, Any] = {"model": model, "export_root": folder, "input_size": size}
    one: dict[str, Any] = {"onnx_kwargs": {"dynamic_shapes": None}}
    try:
        graph = engine.export(export_type="onnx", **options)
        _try_graph(graph, size)
    except (RuntimeError, ValueError, InvalidArgument) as error:
        found.problems.append(f"default ONNX export: {_first_line(error)}")
        graph = engine.export(export_type="onnx", **one, **options)
    found.graph = str(Path(graph).relative_to(folder))
    model_file = engine.export(export_type="openvino", **one, **options)
    found.model = str(Path(model_file).relative_to(folder))
    inferencer = _inferencer(folder / found.model)
    category = Path(request["category"])
    for path in test_pictures(category):
        predicted = inferencer.predict(_resized(cv2.imread(str(path)), size))
        verdict = Verdict(_scalar(predicted.pred_score), bool(_scalar(predicted.pred_label)))
        found.deployed[str(path.relative_to(category))] = verdict


def _try_graph(path: Path, size: tuple[int, ...]) -> None:
    """Score one picture, since a file that takes only pairs of pictures serves no camera."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, *size), np.float32)})


def _resized(bgr: Any, size: tuple[int, ...]) -> Any:
    """Bring a frame to the size of the file, whose own resize (in other exports) is coarser."""
    import cv2

    small = cv2.resize(bgr, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def _inferencer(path: Path, threads: int | None = None) -> Any:
    from anomalib.deploy import OpenVINOInferencer

    config = {"INFERENCE_NUM_THREADS": threads} if threads else None
    return OpenVINOInferencer(path=path, device="CPU", config=config)


def frame(request: Request) -> None:
    """Take a frame in memory to its verdict, again and again."""
    bgr = large_frame(test_pictures(Path(request["category"]))[0], request["side"])
    size = tuple(request["input_size"])
    inferencer = _inferencer(Path(request["folder"]) / request["model"], request["threads"])
    serve(lambda: bool(_scalar(inferencer.predict(_resized(bgr, size)).pred_label)))


def start(request: Request) -> dict[str, float]:
    """Import what a device needs, load the deployed file, and score one picture."""
    started = time.perf_counter()
    import cv2
    from anomalib.deploy import OpenVINOInferencer

    imported = time.perf_counter() - started
    inferencer = OpenVINOInferencer(Path(request["folder"]) / request["model"], device="CPU")
    picture = cv2.imread(str(test_pictures(Path(request["category"]))[0]))
    predicted = inferencer.predict(_resized(picture, tuple(request["input_size"])))
    return {"import_s": imported, "rss_mib": peak_mib(), "score": _scalar(predicted.pred_score)}


def _scalar(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


if __name__ == "__main__":
    run({"fit": fit, "frame": frame, "start": start})
