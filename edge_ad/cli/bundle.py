"""`edge-ad bundle`: what a device needs, in one ZIP."""

from pathlib import Path

import click

from edge_ad.cli.options import require


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The ZIP to write.")
@click.option("--camera", default="0", show_default=True, help="As for `edge-ad stream --camera`.")
@click.option("--name", default="camera", show_default=True, help="The camera's name in verdicts.")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder that `make bundle` wrote, for a device without internet.",
)
def bundle(model: Path, output: Path, camera: str, name: str, wheels: Path | None) -> None:
    """Pack what a device needs to run MODEL into one ZIP.

    Beside the model file it holds a configuration for `edge-ad stream` and the steps on the device.
    """
    require(("cv2", "onnxruntime"), extra="cpu", purpose="reading the model file")
    from edge_ad.project.bundle import Device, write_bundle

    write_bundle(model, output, Device(camera=name, source=camera), wheels)
    click.echo(f"bundle       {output} ({output.stat().st_size / 1e6:.1f} MB)")
