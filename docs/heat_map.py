"""Draw docs/heat-map.png: bricks (CC0, shipped with scikit-image) with a drawn-in scratch and hole.

python docs/heat_map.py
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from edge_ad import Dataset, PatchCore
from edge_ad_runtime import Frame
from edge_ad_runtime.model.overlay import color_range, heat_map, lay_heat

SIZE = 256


def main() -> None:
    """Learn from random crops of the wall, damage one more, and draw picture, map and overlay."""
    wall: Frame = np.asarray(cv2.cvtColor(data.brick(), cv2.COLOR_GRAY2BGR), dtype=np.uint8)  # type: ignore[no-untyped-call]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(24):
            cv2.imwrite(f"{folder}/{index:02}.png", crop(wall, *rng.integers(0, SIZE, 2)))
        detector = PatchCore(sigma=3.0).fit(Dataset.from_folder(Path(folder)))
    good = detector.predict([crop(wall, *rng.integers(0, SIZE, 2)) for _ in range(8)])
    low = min(float(item.anomaly_map.min()) for item in good)
    limit = max(float(item.anomaly_map.max()) for item in good)

    frame = crop(wall, 100, 140)
    scratch = np.array([[60, 190], [95, 150], [130, 140], [165, 95]], np.int32)
    cv2.polylines(frame, [scratch], False, (190, 190, 195), 3, cv2.LINE_AA)
    cv2.circle(frame, (200, 205), 9, (40, 44, 60), -1, cv2.LINE_AA)
    anomaly_map = detector.predict([frame])[0].anomaly_map

    heat = heat_map(anomaly_map, *color_range(low, limit))
    overlay = lay_heat(frame, anomaly_map, low, limit)
    gap = np.full((SIZE, 8, 3), 255, np.uint8)
    picture = np.concatenate([frame, gap, heat, gap, overlay], axis=1)
    cv2.imwrite(str(Path(__file__).with_name("heat-map.png")), picture)


def crop(wall: Frame, top: int, left: int) -> Frame:
    """Cut a square out of the wall."""
    return np.ascontiguousarray(wall[top : top + SIZE, left : left + SIZE])


if __name__ == "__main__":
    main()
