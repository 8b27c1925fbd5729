"""Draw docs/heat-map.png: bricks (CC0, shipped with scikit-image) with a drawn-in scratch and hole.

python docs/heat_map.py
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from edge_ad import Dataset, PatchCore
from edge_ad_runtime import Frame, heat_map

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

    high = low + 1.5 * (limit - low)
    heat = heat_map(anomaly_map, low, high)
    cover = 0.6 * np.clip((anomaly_map - low) / (high - low), 0, 1)[..., np.newaxis]
    overlay = (frame * (1 - cover) + heat * cover).astype(np.uint8)
    hot = (anomaly_map >= limit).astype(np.uint8)
    contours, _ = cv2.findContours(hot, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(overlay, contours, -1, (255, 255, 255), 2, cv2.LINE_AA)
    gap = np.full((SIZE, 8, 3), 255, np.uint8)
    picture = np.concatenate([frame, gap, heat, gap, overlay], axis=1)
    cv2.imwrite(str(Path(__file__).with_name("heat-map.png")), picture)


def crop(wall: Frame, top: int, left: int) -> Frame:
    """Cut a square out of the wall."""
    return np.ascontiguousarray(wall[top : top + SIZE, left : left + SIZE])


if __name__ == "__main__":
    main()
