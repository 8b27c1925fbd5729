"""Fixtures that several packages' tests share; imports nothing that a device lacks."""

import os
import secrets
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

# Read when PyTorch loads: on tiny pictures, several threads wait more than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when ONNX Runtime loads, which test files may do before our packages.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

REAL_PICTURES = Path(os.environ.get("EDGE_AD_TEST_DATA", Path(__file__).parents[2] / "shared/data"))


@pytest.fixture(scope="session")
def real_pictures() -> Path:
    """Folder of real pictures; the test is skipped where it is missing."""
    if not REAL_PICTURES.is_dir():
        pytest.skip(f"no real pictures in {REAL_PICTURES}: set EDGE_AD_TEST_DATA")
    return REAL_PICTURES


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one synthetic category in MVTec layout: `plate`, 64 x 96 pictures.

    Good plates are smooth noise; defective ones carry a bright square with a mask.
    """
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for index in range(24):
        write_picture(root / f"plate/train/good/{index:03}.png", good_plate(rng))
    for index in range(6):
        write_picture(root / f"plate/test/good/{index:03}.png", good_plate(rng))
        frame, mask = good_plate(rng), np.zeros((64, 96), np.uint8)
        top, left = rng.integers(8, 40), rng.integers(8, 72)
        frame[top : top + 16, left : left + 16] = (250, 30, 220)
        mask[top : top + 16, left : left + 16] = 255
        write_picture(root / f"plate/test/spot/{index:03}.png", frame)
        write_picture(root / f"plate/ground_truth/spot/{index:03}_mask.png", mask)
    return root


def good_plate(rng: np.random.Generator) -> np.ndarray:
    """One good plate: (64, 96, 3), uint8."""
    noise = rng.normal(120, 40, (64, 96, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2), 0, 255).astype(np.uint8)


def free_port() -> int:
    """A port that nobody gets before it is used: the system gives away those from 32768 on.

    Asking for one of those again and again may even reach the one who asks.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
