"""The Node.js client gives the scores of the device."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from edge_ad_runtime import Scorer, read_frame
from tests.clients.conftest import CLIENTS, FRAMES, GOLDEN, Case, each_model

NODE = shutil.which("node")
CLIENT = CLIENTS / "node"
MODEL = FRAMES / "board-fusion.onnx"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NODE is None, reason="no node: install Node.js 20 or newer"),
    pytest.mark.skipif(
        not (CLIENT / "node_modules").is_dir(), reason="no node_modules: run `make clients`"
    ),
]


def node(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(NODE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def score(model: Path, *pictures: Path) -> list[dict[str, Any]]:
    done = node(CLIENT / "score.mjs", model, *pictures)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@each_model
def test_it_gives_the_golden_scores(case: Case) -> None:
    case.check(score(case.model, *case.scores))


def test_it_reads_pictures_as_the_device_does(tmp_path: Path) -> None:
    frame = read_frame(FRAMES / "frames/shrinks-scratch.png")
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    pictures = {
        "grey.png": grey,
        "sixteen-bits.png": frame.astype(np.uint16) * 257 + 100,
        "grey-sixteen-bits.png": grey.astype(np.uint16) * 257 - grey // 8,
        "alpha.png": np.dstack([frame, grey]),
        "camera.jpg": frame,
    }
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    upright.save(tmp_path / "turned.jpg", quality=95, exif=turned)
    # With colours of a display, which the device does not look at.
    upright.save(tmp_path / "profile.png", icc_profile=swapped_colours())
    paths = sorted(tmp_path.iterdir())
    scorer = Scorer(MODEL, device="cpu")
    for got, path in zip(score(MODEL, *paths), paths, strict=True):
        expected = scorer.score(read_frame(path)).score
        assert got["score"] == pytest.approx(expected, rel=1e-3), path.name


def swapped_colours() -> bytes:
    """A profile whose red and green are swapped, so that nobody can overlook its use."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    entries = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = (
        profile[green : green + 8],
        profile[red : red + 8],
    )
    return bytes(profile)


def test_it_resizes_every_size_as_the_device_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    sizes = [(128, 128, 64, 64), (192, 128, 64, 64), (1, 1, 32, 40), (300, 40, 50, 50)]
    sizes += [tuple(generator.integers(1, 120, 4).tolist()) for _ in range(40)]
    job = []
    for number, (height, width, *size) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels.tofile(tmp_path / f"{number}.raw")
        job.append([height, width, *size])
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = tmp_path / "resize.mjs"
    script.write_text(
        f"""import {{ readFileSync, writeFileSync }} from "node:fs";
        import {{ resize }} from "{(CLIENT / "edge_ad.mjs").as_uri()}";
        const file = (name) => new URL(name, import.meta.url);
        JSON.parse(readFileSync(file("job.json"))).forEach(([height, width, ...size], number) => {{
          const data = new Uint8Array(readFileSync(file(`${{number}}.raw`)));
          const resized = resize({{ data, height, width }}, ...size);
          writeFileSync(file(`${{number}}.resized`), resized.data);
        }});"""
    )
    done = node(script)
    assert done.returncode == 0, done.stderr
    wrong = []
    for number, (height, width, down, across) in enumerate(job):
        frame = np.fromfile(tmp_path / f"{number}.raw", np.uint8).reshape(height, width, 3)
        shrinks = height >= down and width >= across
        rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        expected = cv2.resize(frame, (across, down), interpolation=rule)
        got = np.fromfile(tmp_path / f"{number}.resized", np.uint8).reshape(down, across, 3)
        difference = cv2.absdiff(got, expected)
        # OpenCV on another processor may add in another order.
        if difference.max() > 1 or np.mean(difference > 0) > 0.02:
            wrong.append((height, width, down, across))
    assert wrong == []


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda model: model[:200_000], "cut off"),
        (lambda model: flipped(model, 150_000), "checksum"),
        (
            lambda model: model.replace(b"format_version\x12\x011", b"format_version\x12\x012"),
            "version 2",
        ),
        (lambda model: model.replace(b"edge_ad.model", b"edge_ad.nodel"), "no metadata"),
        (lambda model: b"no model", "not an ONNX file"),
        (lambda model: b"", "no metadata"),
    ],
    ids=["cut", "bit", "newer", "foreign", "text", "empty"],
)
def test_it_refuses_a_model_file_with_a_reason(damage: Any, reason: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(damage(MODEL.read_bytes()))
    done = node(CLIENT / "score.mjs", model, GOLDEN / "good.png")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr


def flipped(model: bytes, place: int) -> bytes:
    return model[:place] + bytes([model[place] ^ 1]) + model[place + 1 :]


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((FRAMES / "frames/shrinks.png").read_bytes()[:3000])
    done = node(CLIENT / "score.mjs", MODEL, broken, FRAMES / "frames/shrinks.png")
    assert done.returncode == 1
    assert "broken.png" in done.stderr and len(done.stdout.splitlines()) == 1
