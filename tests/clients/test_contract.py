"""docs/model-file.md against the device: its resize rule, its metadata, the golden scores."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_ad_runtime import Scorer, read_frame
from edge_ad_runtime.model.image import Preprocessing
from tests.clients.conftest import FRAMES, ROOT, Case, each_model

RESIZED = json.loads((FRAMES / "golden.json").read_text())["resized"]


@each_model
def test_the_device_gives_the_golden_scores(case: Case) -> None:
    scorer = Scorer(case.model, device="cpu")
    assert scorer.threshold == case.threshold
    verdicts = []
    for picture in case.scores:
        result = scorer.score(read_frame(picture))
        peak = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
        verdicts.append(
            {
                "score": result.score,
                "anomalous": result.anomalous,
                "map_maximum": float(result.anomaly_map.max()),
                "map_maximum_at": peak,
            }
        )
    case.check(verdicts)


@pytest.mark.parametrize("golden", RESIZED, ids=lambda golden: Path(golden["expected"]).stem)
def test_the_device_resizes_as_the_golden_pictures_show(golden: dict[str, Any]) -> None:
    height, width = golden["input_size"]
    geometry = Preprocessing(input_size=(height, width), resize=golden["resize"])
    resized = geometry.apply(read_frame(FRAMES / golden["frame"]))
    expected = cv2.imread(str(FRAMES / golden["expected"]))
    assert expected is not None
    # Other processors add in another order: one grey level, seldom.
    difference = cv2.absdiff(resized, expected)
    assert difference.max() <= 1 and np.mean(difference > 0) < 0.02


@each_model
def test_the_document_names_every_key_of_the_metadata(case: Case) -> None:
    document = (ROOT / "docs/model-file.md").read_text()
    described = set(re.findall(r"`([a-z_0-9.]+)`", document))
    info = Scorer(case.model, device="cpu")._session.get_modelmeta().custom_metadata_map
    keys = {*info, *json.loads(info["edge_ad.model"])}
    assert keys - described == set()
