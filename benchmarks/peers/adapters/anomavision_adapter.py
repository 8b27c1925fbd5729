"""AnomaVision through its public classes: Padim, PatchCore, the exporter, and `detect` for video.

Its extractor knows two ResNets and downloads their weights. Here the name `resnet18` stands for
EfficientNet-Lite0 with the weights that edge-ad packages, cut into the four stages that the
extractor calls, so that all tools see the same features.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.adapters.protocol import (
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

STAGE_CHANNELS = {0: [24], 1: [40], 2: [112], 3: [320]}
HALF = [0.5, 0.5, 0.5]


class LiteStages(nn.Module):
    """timm's EfficientNet-Lite0 under the attribute names of a ResNet."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        import timm

        network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        missing, _ = network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
        if missing:
            raise ValueError(f"the weights lack {missing[:3]}")
        blocks = network.blocks
        self.conv1, self.bn1 = network.conv_stem, network.bn1
        self.relu, self.maxpool = nn.Identity(), nn.Identity()
        self.layer1, self.layer2 = nn.Sequential(blocks[0], blocks[1]), blocks[2]
        self.layer3, self.layer4 = nn.Sequential(*blocks[3:5]), nn.Sequential(*blocks[5:7])


def create(request: Request) -> Any:
    """Build the model of a method with the given weights."""
    import anomavision
    from anomavision.algorithm.common import feature_extraction
    from anomavision.algorithm.padim import padim

    weights = request["weights"]
    feature_extraction.BACKBONES["resnet18"] = (lambda **_: LiteStages(weights), None)
    padim.BACKBONE_FEATURE_SIZES["resnet18"] = STAGE_CHANNELS
    if request["method"] == "padim":
        return anomavision.Padim(layer_indices=[0, 1, 2], feat_dim=request["dims"])
    return anomavision.PatchCore(
        layer_indices=[1, 2],
        coreset_ratio=request["share"],
        max_memory_patches=None,
        patch_grid=None,
    )


def fit(request: Request) -> Fitted:
    """Train, export and score the test pictures, once with each."""
    import anomavision
    from anomavision.export import ModelExporter
    from anomavision.inference.model.wrapper import ModelWrapper
    from torch.utils.data import DataLoader

    category, folder = Path(request["category"]), Path(request["folder"])
    size = tuple(request["input_size"])
    good = anomavision.AnodetDataset(
        str(category / "train/good"), resize=size, crop_size=None, mean=HALF, std=HALF
    )
    model = create(request)
    picks: list[tuple[int, float]] = []
    if request["method"] == "patchcore":
        _time_coreset(model, picks)
    with cost() as spent:
        model.fit(DataLoader(good, batch_size=8))
    vars(model).pop("_select_coreset", None)  # the timed one cannot be saved
    found = Fitted(fit=spent, peak_mib=peak_mib(), picks=picks[0] if picks else None)
    images = {str(path.relative_to(category)): path for path in test_pictures(category)}
    transform = _transform(size)
    maps: dict[str, Map] = {}
    for name, path in images.items():
        with torch.no_grad():
            score, anomaly_map = model.predict(_image(path, transform))
        found.training[name] = Verdict(float(score[0]), None)
        maps[name] = _blurred(anomaly_map)
    save_maps(folder, maps)
    torch.save(model, folder / "model.pt")
    beside = folder / request["method"]  # where `detect` looks for it
    exporter = ModelExporter(folder / "model.pt", beside, logging.getLogger("export"), "cpu")
    exported = exporter.export_onnx((1, 3, *size), "model.onnx", force_precision="fp32")
    if exported is None:
        found.problems.append("the ONNX export failed")
        return found
    found.model = found.graph = str(exported.relative_to(folder))
    deployed = ModelWrapper(str(exported), "cpu")
    for name, path in images.items():
        score, _ = deployed.predict(_image(path, transform))
        found.deployed[name] = Verdict(float(score[0]), None)
    return found


def _time_coreset(model: Any, picks: list[tuple[int, float]]) -> None:
    original = model._select_coreset

    def timed(bank: Tensor, keep: int) -> Tensor:
        with cost() as spent:
            chosen: Tensor = original(bank, keep)
        picks.append((keep, spent.wall_s))
        return chosen

    model._select_coreset = timed


def _transform(size: tuple[int, ...]) -> Any:
    from anomavision.utils import create_image_transform

    return create_image_transform(resize=size, crop_size=None, normalize=True, mean=HALF, std=HALF)


def _image(path: Path, transform: Any) -> Tensor:
    from PIL import Image

    image: Tensor = transform(Image.open(path).convert("RGB"))[None]
    return image


def _blurred(anomaly_map: Tensor) -> Map:
    from anomavision.utils import adaptive_gaussian_blur

    blurred = adaptive_gaussian_blur(anomaly_map, kernel_size=33, sigma=4)
    one: Map = np.asarray(blurred, np.float32)[0]
    return one


def frame(request: Request) -> None:
    """Take a frame in memory to its score and blurred map, as `detect` does, again and again."""
    import cv2
    from anomavision.inference.model.wrapper import ModelWrapper
    from PIL import Image

    bgr = large_frame(test_pictures(Path(request["category"]))[0], request["side"])
    transform = _transform(tuple(request["input_size"]))
    model = ModelWrapper(str(Path(request["folder"]) / request["model"]), "cpu")

    def verdict() -> bool:
        image = transform(Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))[None]
        scores, maps = model.predict(image)
        return bool(_blurred(torch.as_tensor(maps)).max() > scores[0])

    serve(verdict)


def start(request: Request) -> dict[str, float]:
    """Import what a device needs, load the deployed file, and score one picture."""
    started = time.perf_counter()
    from anomavision.inference.model.wrapper import ModelWrapper

    imported = time.perf_counter() - started
    model = ModelWrapper(str(Path(request["folder"]) / request["model"]), "cpu")
    picture = test_pictures(Path(request["category"]))[0]
    score, _ = model.predict(_image(picture, _transform(tuple(request["input_size"]))))
    return {"import_s": imported, "rss_mib": peak_mib(), "score": float(score[0])}


def video(request: Request) -> dict[str, float]:
    """Run `anomavision detect` on a video file or the URL of a camera.

    It writes its scores nowhere, so that a line for each is printed here.
    """
    import yaml
    from anomavision.detect import create_parser, run_inference
    from anomavision.inference.model.wrapper import ModelWrapper

    original = ModelWrapper.predict

    def told(self: Any, batch: Tensor) -> Any:
        scores, maps = original(self, batch)
        print(json.dumps({"score": float(scores[0])}), flush=True)
        return scores, maps

    ModelWrapper.predict = told

    folder = Path(request["folder"])
    config = {
        "algorithm": request["method"],
        "class_name": ".",
        "run_name": ".",
        "model": Path(request["model"]).name,
        "device": "cpu",
        "batch_size": 1,
        "resize": list(request["input_size"]),
        "crop_size": None,
        "normalize": True,
        "norm_mean": HALF,
        "norm_std": HALF,
        "thresh": 13.0,
        "enable_visualization": False,
        "save_visualizations": False,
        "stream_mode": True,
        "stream_source": {"type": "video", "video_path": request["source"]},
        "log_level": "INFO",
    }
    path = folder / "video.yml"
    path.write_text(yaml.safe_dump(config))
    # Not in the file: the default of the command line would win over it.
    options = ["--config", str(path), "--model_data_path", str(folder)]
    arguments = create_parser().parse_args(options)
    metrics, _ = run_inference(arguments)
    return {"frames": metrics["total_images"], "seconds": metrics["total_time_s"]}


if __name__ == "__main__":
    run({"fit": fit, "frame": frame, "start": start, "video": video})
