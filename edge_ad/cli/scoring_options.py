"""The options of the commands that score."""

import click

device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]),
    default="auto",
    show_default=True,
    help="auto: CUDA where it works, else the CPU. The others never fall back.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads. Default: one a core."
)
threshold_option = click.option(
    "--threshold",
    type=float,
    help="Decision limit. Default: that of `edge-ad calibrate`, else the model file's.",
)
min_region_area_option = click.option(
    "--min-region-area",
    type=click.FloatRange(min=0, max=1, max_open=True),
    metavar="SHARE",
    help="Smallest region that is told, as a share of the picture, such as 0.001. Default: 0.",
)
