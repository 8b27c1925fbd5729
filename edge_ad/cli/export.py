"""`edge-ad export`: a run folder in, one ONNX file out."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from edge_ad.cli.options import prepare_training, require
from edge_ad.runs import DEFAULT_RESULTS, newest_run
from edge_ad_runtime.errors import DataError


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--output", type=click.Path(path_type=Path), help="Default: inside the run folder.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=DEFAULT_RESULTS,
    show_default=True,
    help="Where to look for the newest run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the path and the figures as JSON.")
def export(run: Path | None, output: Path | None, results: Path, as_json: bool) -> None:
    """Write RUN (default: the newest) as one self-contained ONNX file, proven against PyTorch."""
    prepare_training("exporting")
    require(("onnx", "onnxscript"), extra="train", purpose="exporting")
    require(("onnxruntime",), extra="cpu", purpose="exporting")
    from edge_ad_export import export as export_run

    run = run or newest_run(results)
    if run is None:
        raise DataError(f"found no run below {results}: train one with `edge-ad train`")
    exported = export_run(run, output)
    if as_json:
        figures = asdict(exported.parity)
        click.echo(
            json.dumps(
                {
                    "run": str(run),
                    "model": str(exported.path),
                    "size_bytes": exported.size_bytes,
                    "parity": figures,
                }
            )
        )
        return
    parity = exported.parity
    click.echo(
        f"model        {exported.path} ({exported.size_bytes / 1e6:.1f} MB)\n"
        f"parity       {parity.n_pictures} pictures, scores within {parity.score_difference:.1e}, "
        f"maps within {parity.map_difference:.1e} of PyTorch"
    )
