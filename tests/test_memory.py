"""PaDiM's fit takes no more memory for many pictures than for few."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

FIT = """
from pathlib import Path
import resource, sys, torch
from edge_ad import Dataset, PaDiM
torch.set_num_threads(1)
PaDiM(weights="none", input_size=(128, 128)).fit(Dataset.from_folder(Path(sys.argv[1])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 pictures in `many`, the first 100 of them in `few` as well."""
    root = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    for name in ("few", "many"):
        (root / name).mkdir()
    for index in range(500):
        data = cv2.imencode(".jpg", rng.integers(0, 255, (256, 256, 3), dtype=np.uint8))[1]
        for name in ("few", "many") if index < 100 else ("many",):
            (root / name / f"{index:03}.jpg").write_bytes(data.tobytes())
    return root


def peak_rss(folder: Path) -> int:
    result = subprocess.run(
        [sys.executable, "-c", FIT, str(folder)], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.slow
def test_500_pictures_take_no_more_memory_than_100(pictures: Path) -> None:
    assert peak_rss(pictures / "many") <= 1.1 * peak_rss(pictures / "few")
