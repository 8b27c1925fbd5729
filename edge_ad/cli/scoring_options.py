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
    "--threshold", type=float, help="Decision limit. Default: the model file's."
)
