"""Count what a newcomer meets: modules, shreds, and the files that a frame and a picture cross.

    python benchmarks/structure.py [CHECKOUT ...]

Several checkouts stand side by side in one table, as before and after. The two paths are measured:
a process counts the function calls of each file while a folder is streamed or a detector trained,
once with few pictures and once with many. A file whose calls grow with the pictures is on the path.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

PACKAGES = ("edge_ad", "export/edge_ad_export", "runtime/edge_ad_runtime")
SMALL = 60
FEW, MANY = 12, 36

CHANGES = {
    "files to open for a new output": r"webhook",
    "files to open for a new camera type": r"WatchedFolder",
    "files to open for a new detector option": r"\bepsilon\b",
}
"""An existing example of each change: the next one touches the files that name it."""

TRACED = """
import collections, contextlib, io, json, sys, threading
root, *command = sys.argv[1:]
calls = collections.Counter()
def trace(frame, event, argument):
    name = frame.f_code.co_filename
    # An environment in the checkout holds other people's files.
    ours = name.startswith(root) and "site-packages" not in name
    if ours and frame.f_code.co_name != "<module>":
        calls[name[len(root) + 1:]] += 1
from edge_ad.cli import main
threading.settrace(trace)
sys.settrace(trace)
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(command)
sys.settrace(None)
print(json.dumps(calls))
"""


def measure(checkout: Path, data: Path) -> dict[str, int]:
    """Return the figures of one checkout.

    Args:
        checkout: root folder.
        data: holds `few` and `many`, data roots with the category `part`.
    """
    modules = [path for package in PACKAGES for path in (checkout / package).rglob("*.py")]
    texts = {path: path.read_text() for path in modules}
    functions = [
        node.name
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    private = {name for name in functions if name.startswith("_") and not name.startswith("__")}
    words = re.findall(r"\w+", " ".join(texts.values()))
    # A definition and one call: the name stands twice.
    once = sum(words.count(name) == 2 for name in private)
    lines = {path: text.count("\n") for path, text in texts.items()}
    fronts = [path for path in modules if path.name == "__init__.py"]
    device = [path for path in modules if "edge_ad_runtime" in str(path)]
    model = checkout / "tests/golden/padim/chip-padim.onnx"
    if not model.exists():
        model = Path(__file__).parents[1] / "tests/golden/padim/chip-padim.onnx"
    frame_path, video_path = (
        path_of(
            checkout,
            [
                ["stream", "--camera", str(data / size / source), "--model", str(model)]
                for size in ("few", "many")
            ],
        )
        for source in ("part/train/good", "parts.avi")
    )
    training = ["train", "padim", "--class", "part", "--input-size", "64x64", "--data-root"]
    picture_path = path_of(
        checkout,
        [
            [*training, str(data / size), "--results", str(data / f"results-{size}")]
            for size in ("few", "many")
        ],
    )
    return {
        "modules": len(modules),
        "`__init__.py` among them": len(fronts),
        f"other modules of at most {SMALL} lines": sum(
            count <= SMALL for path, count in lines.items() if path not in fronts
        ),
        "modules of the device package": len(device),
        "`__init__.py` of the device package": sum(path in fronts for path in device),
        "lines of the longest module": max(lines.values()),
        "private functions": len(private),
        "private functions that are called once": once,
        "files that one frame of a folder crosses": len(frame_path),
        "files that one frame of a video crosses": len(video_path),
        "files that one training picture crosses": len(picture_path),
        **{
            what: sum(re.search(example, text, re.I) is not None for text in texts.values())
            for what, example in CHANGES.items()
        },
    }


def path_of(checkout: Path, commands: list[list[str]]) -> list[str]:
    """Return the files whose calls grow with the pictures, from few to many of them."""
    few, many = (count_calls(checkout, command) for command in commands)
    # Batches hold four pictures.
    found = [file for file in many if many[file] - few.get(file, 0) >= (MANY - FEW) // 4]
    print(f"{checkout}: {commands[0][0]}: {' '.join(found)}", file=sys.stderr)
    return found


def count_calls(checkout: Path, command: list[str]) -> dict[str, int]:
    """Run the command line of a checkout and count the calls of each of its files."""
    roots = os.pathsep.join(str(checkout / part) for part in (".", "export", "runtime"))
    done = subprocess.run(
        [sys.executable, "-c", TRACED, str(checkout), *command],
        env=os.environ | {"PYTHONPATH": roots},
        capture_output=True,
        text=True,
        cwd=checkout,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(command)} failed: {done.stderr}")
    calls: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return calls


def write_parts(root: Path, count: int) -> None:
    """Write a category of plain parts with noise, and a video of them."""
    rng = np.random.default_rng(0)
    folder = root / "part/train/good"
    folder.mkdir(parents=True)
    motion_jpeg = cv2.VideoWriter.fourcc(*"MJPG")
    video = cv2.VideoWriter(str(root / "parts.avi"), motion_jpeg, 10, (64, 64))
    for index in range(count):
        picture = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:03}.png"), picture)
        video.write(picture)
    video.release()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    checkouts = [path.resolve() for path in parser.parse_args().checkouts]
    with tempfile.TemporaryDirectory() as folder:
        for size, count in (("few", FEW), ("many", MANY)):
            write_parts(Path(folder) / size, count)
        columns = [measure(checkout, Path(folder)) for checkout in checkouts]
    print("| |" + "".join(f" {path.name} |" for path in checkouts))
    print("|---|" + "---|" * len(columns))
    for name in columns[0]:
        print(f"| {name} |" + "".join(f" {column[name]} |" for column in columns))


if __name__ == "__main__":
    main()
