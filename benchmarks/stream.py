"""How much the stream costs: its throughput from a video against that of the bare session.

    python benchmarks/stream.py --model results/bottle/padim/bottle-padim.onnx

Many short interleaved rounds in one process on the same number of threads, since other work on the
machine slows both alike only over short times; the ratio is the median over the rounds.
The bare session scores one prepared frame again and again and does nothing else: no decoding, no
resize, no output. The stream decodes, resizes, scores and writes JSON lines.
"""

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import onnxruntime

from edge_ad_runtime import JsonLines, Scorer, open_source, run_stream


def main() -> None:
    """Print one table row for each size of video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", action="append", help="WxH of the video; may be repeated")
    arguments = parser.parse_args()
    scorer = Scorer(arguments.model, device="cpu", threads=arguments.threads)
    print(
        f"{os.cpu_count()} cores {platform.machine()}, {arguments.threads} threads, "
        f"ONNX Runtime {onnxruntime.__version__}, OpenCV {cv2.__version__}, "
        f"{scorer.info.method} on {scorer.info.backbone} at {scorer.info.input_size}\n"
    )
    print("| video | bare session | stream | ratio | middle half of the rounds |")
    print("|---|---|---|---|---|")
    for size in arguments.size or ["512x512", "1280x720"]:
        width, height = (int(part) for part in size.split("x"))
        print(row(scorer, (width, height), arguments.frames, arguments.rounds), flush=True)


def row(scorer: Scorer, size: tuple[int, int], frames: int, rounds: int) -> str:
    """Measure one size of video."""
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "parts.mp4"
        write_video(video, size, frames)
        bare, stream = [], []
        for _ in range(rounds):
            bare.append(bare_rate(scorer, frames))
            stream.append(stream_rate(scorer, video, frames))
    ratios = [ours / theirs for ours, theirs in zip(stream, bare, strict=True)]
    lower, ratio, upper = statistics.quantiles(ratios, n=4)
    ours, theirs = statistics.median(stream), statistics.median(bare)
    return (
        f"| {size[0]} x {size[1]} | {theirs:.0f} frames/s | {ours:.0f} frames/s "
        f"| **{ratio:.2f}** | {lower:.2f} to {upper:.2f} |"
    )


def bare_rate(scorer: Scorer, frames: int) -> float:
    """Frames a second of the session alone."""
    height, width = scorer.info.input_size
    frame = np.random.default_rng(0).integers(0, 255, (1, height, width, 3), dtype=np.uint8)
    session = scorer._session
    started = perf_counter()
    for _ in range(frames):
        session.run(None, {"frame": frame})
    return frames / (perf_counter() - started)


def stream_rate(scorer: Scorer, video: Path, frames: int) -> float:
    """Frames a second from the file to the lines, opening the file included."""
    with (video.parent / "verdicts.jsonl").open("w") as lines:
        started = perf_counter()
        summary = run_stream(open_source(str(video)), scorer, [JsonLines(lines)])
    if summary.frames != frames:
        raise SystemExit(f"expected {frames} verdicts, got {summary.frames}")
    return frames / (perf_counter() - started)


def write_video(path: Path, size: tuple[int, int], frames: int) -> None:
    """Write a moving, noisy scene."""
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(120, 60, (size[1], 2 * size[0], 3)), (0, 0), 3)
    scene = np.clip(noise, 0, 255).astype(np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    for index in range(frames):
        offset = index % size[0]
        writer.write(np.ascontiguousarray(scene[:, offset : offset + size[0]]))
    writer.release()


if __name__ == "__main__":
    main()
