"""`edge-ad studio`: collecting, training, judging and deploying in a browser."""

from pathlib import Path

import click

from edge_ad.cli.options import data_root_option, prepare_export, require


@click.command()
@data_root_option
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8501,
    show_default=True,
    help="0 takes a free port.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. Addresses other than 127.0.0.1 need a token of 12 or more "
    "characters in EDGE_AD_TOKEN.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="A further name by which browsers may call this machine, such as studio.local.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder that `make bundle` wrote, so that bundles serve devices without internet.",
)
def studio(
    data_root: Path, port: int, host: str, names: tuple[str, ...], wheels: Path | None
) -> None:
    """Set up an inspection in a browser, from camera to model file.

    Pictures lie below the data root in MVTec layout, and everything that the Studio makes lies
    there as well, so that a restart finds it again. Trainings are processes of their own, which a
    restart does not disturb.
    """
    prepare_export("the Studio")
    require(("starlette", "uvicorn", "nicegui"), extra="studio", purpose="the Studio")
    from edge_ad.studio.server import StudioServer
    from edge_ad_runtime.page.server import local_url
    from edge_ad_runtime.stream.config import ServeConfig

    server = StudioServer(data_root, ServeConfig(host=host, port=port, names=names), wheels)
    click.echo(f"Studio of {server.studio.data_root}: open {local_url(server.address)}")
    server.run()
