"""`edge-ad export`: a run folder in, one ONNX file out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.options import (
    prepare_export,
    progress_file,
    progress_option,
    results_option,
    wrapped,
)
from edge_ad_export.recipe import PRECISIONS, TARGETS
from edge_ad_runtime.errors import ConfigError, counted

if TYPE_CHECKING:
    from edge_ad_export import Exported


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file to write. Default: inside the run folder.",
)
@results_option("Where to look for the newest run.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="cpu",
    show_default=True,
    help="Where the file will run. portable is plain float32 for any runtime.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="auto: int8 scoring for cpu, a float16 backbone for cuda and tensorrt; "
    "fp32 where the check against PyTorch finds that too coarse.",
)
@click.option(
    "--bake-resize",
    is_flag=True,
    help="Include the resizing in the graph, which then takes frames of any size.",
)
@click.option(
    "--threshold",
    type=float,
    help="Decision limit of the file, in the unit of its scores. Default: that of the run.",
)
@click.option(
    "--golden-frames/--no-golden-frames",
    default=True,
    help="Whether to store two pictures of the run, at input size, in the file. A device checks "
    "the file with them before using it.",
)
@click.option("--with-backbone", is_flag=True, help="Also write the bare backbone, for bench.")
@click.option(
    "--force", is_flag=True, help="Write the file even if its check against PyTorch fails."
)
@click.option("--json", "as_json", is_flag=True, help="Print the path and the figures as JSON.")
@progress_option
def export(
    run: Path | None,
    output: Path | None,
    results: Path,
    target: str,
    precision: str,
    bake_resize: bool,
    threshold: float | None,
    golden_frames: bool,
    with_backbone: bool,
    force: bool,
    as_json: bool,
    progress: Path | None,
) -> None:
    """Write RUN, by default the newest, as one ONNX file.

    The file holds everything that a device needs. Before it replaces an older one, it is compared
    with PyTorch on pictures of the run; a file that differs too much is refused.
    """
    prepare_export("exporting")
    from edge_ad.runs import all_runs
    from edge_ad_export import ExportOptions
    from edge_ad_export import export as export_run

    if run is None:
        runs = all_runs(results)
        if not runs:
            raise ConfigError(f"found no run below {results}: train one with `edge-ad train`")
        run = runs[0]
    options = ExportOptions(
        target=target,
        precision=precision,
        bake_resize=bake_resize,
        force=force,
        with_backbone=with_backbone,
        threshold=threshold,
        golden_frames=golden_frames,
    )
    with progress_file(progress):
        exported = export_run(
            run, output, options, progress=lambda text: click.echo(text, err=True)
        )
    click.echo(_json(run, exported) if as_json else _text(exported))


def _json(run: Path, exported: "Exported") -> str:
    return json.dumps(
        {
            "run": str(run),
            "model": str(exported.path),
            "size_bytes": exported.size_bytes,
            "threshold": exported.info.threshold,
            "backbone": str(exported.backbone) if exported.backbone else None,
            "parity": asdict(exported.parity),
        }
    )


def _text(exported: "Exported") -> str:
    info, parity = exported.info, exported.parity
    resize = ", resizes frames itself" if info.resize_in_graph else ""
    n_test = parity.n_pictures - parity.n_training
    proof = (
        f"{counted(n_test, 'test picture')} and {counted(parity.n_training, 'training picture')}"
    )
    lines = [
        f"model        {exported.path} ({exported.size_bytes / 1e6:.1f} MB, {info.target}, "
        f"{parity.precision}{resize})",
        f"limit        {info.threshold:.4f}",
        wrapped(f"promise      {info.threshold_rule}"),
        f"proof        {proof}: scores within {parity.score_difference:.1e}, "
        f"maps within {parity.map_difference:.1e} of PyTorch",
    ]
    if parity.rank_correlation is not None:
        lines.append(
            f"             rank correlation {parity.rank_correlation:.6f}, "
            f"{counted(parity.verdict_flips, 'verdict')} changed"
        )
    for name in ("image_auroc", "pixel_auroc"):
        pair = getattr(parity, name)
        if pair:
            lines.append(f"{name:<12} {pair[1]:.4f} ({pair[0]:.4f} in PyTorch)")
    if exported.backbone:
        lines.append(f"backbone     {exported.backbone}")
    return "\n".join(lines)
