"""`edge-ad demo`: the whole way on real solar cells, from pictures to a stream of verdicts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import prepare_export, require, results_option

if TYPE_CHECKING:
    from edge_ad.data import Dataset

CATEGORY = "elpv-mono"

FALSE_ALARM_RATE = 0.02
"""Of the good cells: what a person who looks at every stopped cell could live with."""


@click.command()
@results_option("Where the run is written.")
def demo(results: Path) -> None:
    """Train, export and stream on pictures of real solar cells.

    Fusion learns from good cells, and the exported file judges the test cells. At the end the demo
    prints how many good cells that file stopped, and how many defective ones it let pass.
    """
    prepare_export("the demo")
    require(("elpv_dataset",), extra="demo", purpose="the demo")
    from edge_ad.cli.train import summary
    from edge_ad.data import load_category
    from edge_ad.models import Fusion
    from edge_ad.train import LimitOptions, train
    from edge_ad_export import export
    from edge_ad_runtime import JsonLines, Scorer, run_stream
    from edge_ad_runtime.cameras import PictureFiles

    category = load_category(CATEGORY, data_root=Path())
    click.echo("1/3 train: fusion on pictures of good solar cells", err=True)
    run = train(Fusion(), category, results, LimitOptions(false_alarm_rate=FALSE_ALARM_RATE))
    click.echo("2/3 export: one ONNX file, compared with PyTorch", err=True)
    exported = export(run.folder)
    click.echo("3/3 stream: the test pictures, as if from a camera", err=True)
    scorer = Scorer(exported.path)
    source = PictureFiles([sample.path for sample in category.test], name=CATEGORY)
    lines = run.folder / "stream.jsonl"
    with lines.open("w") as file:
        streamed = run_stream(source, scorer, [JsonLines(file, camera=CATEGORY)])
    click.echo(summary(run))
    click.echo(f"model        {exported.path} ({exported.size_bytes / 1e6:.1f} MB)")
    click.echo(f"verdicts     {lines}")
    click.echo(f"stream       {streamed} on {scorer.provider}")
    click.echo(_verdicts(lines, category.test))


def _verdicts(lines: Path, test: "Dataset") -> str:
    """Compare the streamed verdicts with the labels of the test cells."""
    stopped = {
        verdict["path"]: verdict["anomalous"]
        for verdict in map(json.loads, lines.read_text().splitlines())
        if "anomalous" in verdict
    }
    good = [stopped[str(sample.path)] for sample in test if not sample.anomalous]
    defective = [stopped[str(sample.path)] for sample in test if sample.anomalous]
    alarms, missed = sum(good), len(defective) - sum(defective)
    return (
        f"false alarms {100 * alarms / len(good):.1f} % ({alarms} of {len(good)} good cells)\n"
        f"missed       {100 * missed / len(defective):.1f} % ({missed} of {len(defective)} "
        "defective cells)"
    )
