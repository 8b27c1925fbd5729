"""edge-ad beside its peers, in one run: `make bench`, or `python -m benchmarks.peers`.

What was measured is kept in the work folder, so that an interrupted run continues where it was.
`--again inference --again frame` measures these tables anew and writes the page.
"""

import os
import platform
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from benchmarks.peers.bench import Bench, Table
from benchmarks.peers.device import footprint, video
from benchmarks.peers.measurements import Measurements
from benchmarks.peers.page import draw_chart, markdown
from benchmarks.peers.pictures import classes_at_hand
from benchmarks.peers.timing import frame, inference, latency_ms
from benchmarks.peers.tools import ANOMALIB, ANOMAVISION, DEVICE, ROOT, TOOLS, prepare, version
from benchmarks.peers.training import accuracy, fidelity, mean_image_auroc, training

TABLES: dict[str, Callable[[Bench], Table]] = {
    "accuracy": accuracy,
    "training": training,
    "inference": inference,
    "frame": frame,
    "fidelity": fidelity,
    "footprint": footprint,
    "video": video,
}


@click.command()
@click.option("--table", "tables", multiple=True, type=click.Choice(list(TABLES)))
@click.option(
    "--again",
    multiple=True,
    type=click.Choice(list(TABLES)),
    help="Measure a table anew. accuracy: train on all classes; training: on the first one.",
)
@click.option("--classes", help="Names of classes, separated by commas. Default: all at hand.")
@click.option("--pictures", default=200, show_default=True, help="Good pictures of a class.")
@click.option("--rounds", default=40, show_default=True, help="Turns of each timing.")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=os.environ.get("EDGE_AD_TEST_DATA", ROOT.parent / "shared" / "data"),
    help="Folder of the class folders.",
)
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / ".venv-peers" / "work")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT / "benchmarks" / "RESULTS.md",
    help="The page; its chart, results.svg, lies beside it.",
)
def main(
    tables: tuple[str, ...],
    again: tuple[str, ...],
    classes: str | None,
    pictures: int,
    rounds: int,
    data_root: Path,
    work: Path,
    output: Path,
) -> None:
    """Compare edge-ad with its peers: all tables into benchmarks/RESULTS.md, or some to stdout."""
    for tool in TOOLS:
        prepare(tool)
    names = classes.split(",") if classes else classes_at_hand(data_root)

    def forget(key: Mapping[str, Any]) -> bool:
        if key["table"] != "fit":
            return key["table"] in again
        return "accuracy" in again or ("training" in again and key["class"] == names[0])

    bench = Bench(
        work=work.resolve(),
        data_root=data_root,
        class_names=names,
        measurements=Measurements(work / "measurements.jsonl", forget),
        pictures=pictures,
        rounds=rounds,
    )
    if tables:
        for name in tables:
            click.echo(markdown(TABLES[name](bench)))
        return
    parts = [markdown(create(bench)) for create in TABLES.values()]
    points = _points(bench)
    if points:
        draw_chart(points, output.with_name("results.svg"), len(bench.classes))
    output.write_text("\n".join([_preamble(bench), *parts]))
    click.echo(f"wrote {output}")


def _points(bench: Bench) -> dict[str, tuple[float, float]]:
    points = {}
    for contender in bench.contenders:
        latency, auroc = latency_ms(bench, contender), mean_image_auroc(bench, contender)
        if latency is not None and auroc is not None:
            points[contender.name] = (latency, auroc)
    return points


def _preamble(bench: Bench) -> str:
    versions = [
        f"edge-ad {version(DEVICE, 'edge-ad')} with ONNX Runtime {version(DEVICE, 'onnxruntime')}",
        f"anomalib {version(ANOMALIB, 'anomalib')} with PyTorch {version(ANOMALIB, 'torch')} and "
        f"OpenVINO {version(ANOMALIB, 'openvino')}",
        f"AnomaVision {version(ANOMAVISION, 'anomavision')} with PyTorch "
        f"{version(ANOMAVISION, 'torch')} and ONNX Runtime {version(ANOMAVISION, 'onnxruntime')}",
    ]
    listed = "\n".join(f"- {one}" for one in versions)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    today = datetime.now(timezone.utc).date().isoformat()
    return f"""# edge-ad beside its peers

Written by `make bench` on {today}. Machine: {_processor()}, {os.cpu_count()} cores, Python
{platform.python_version()}; load averages at the end {load}. A load above
{os.cpu_count()} means that other work was running: the times are too high then.

{listed}

All tools learn from the same pictures of the same classes ({", ".join(bench.class_names)}), at the
same input size ({bench.classes[0].input_size[0]} x {bench.classes[0].input_size[1]} pixels for
{bench.classes[0].name}), with the same backbone and weights (EfficientNet-Lite0; edge-ad's preset
`accurate` has Lite2 at about 384 x 384), and keep {bench.share:.0%} of the patches in a memory. The
best figure of each column is bold; a dash means that there is none, with the tool's own words below
the table.

![Image AUROC against latency](results.svg)
"""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
