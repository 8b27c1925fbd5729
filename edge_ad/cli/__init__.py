"""The command line: parse, call one function, print. Heavy imports stay inside the commands."""

import copy
import errno
import io
import logging
import sys
from typing import Any

import click

from edge_ad import __version__
from edge_ad.cli.bench import bench
from edge_ad.cli.bundle import bundle
from edge_ad.cli.calibrate import calibrate
from edge_ad.cli.collect import collect
from edge_ad.cli.compare import compare
from edge_ad.cli.demo import demo
from edge_ad.cli.doctor import doctor
from edge_ad.cli.export import export
from edge_ad.cli.info import info
from edge_ad.cli.install import install
from edge_ad.cli.limit import limit
from edge_ad.cli.predict import predict
from edge_ad.cli.runs import runs
from edge_ad.cli.sign import sign, verify
from edge_ad.cli.stream import stream
from edge_ad.cli.studio import studio
from edge_ad.cli.train import train
from edge_ad_runtime.errors import EdgeAdError, redact


class _Group(click.Group):
    """A group that turns our own errors into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeAdError as error:
            raise click.ClickException(str(error)) from error
        except click.UsageError as error:
            # What was typed in a wrong place may be a camera's address.
            text = error.format_message()
            if redact(text) == text:
                raise
            raise click.UsageError(redact(text), error.ctx) from error
        except OSError as error:
            # A file has its name in the error: without one, it is what stands behind stdout.
            if error.errno != errno.ENOSPC or error.filename is not None:
                raise
            reason = "cannot write the result to standard output (no space left on the disk)"
            raise click.ClickException(reason) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="Log more to stderr.")
def main(verbose: bool) -> None:
    """Visual anomaly detection: from pictures of good parts to a device beside the line."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # File names need not be text: they are printed all the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


main.add_command(studio)
main.add_command(train)
main.add_command(runs)
main.add_command(limit)
main.add_command(export)
main.add_command(bundle)
main.add_command(predict)
main.add_command(stream)
main.add_command(calibrate)
main.add_command(collect)
main.add_command(bench)
main.add_command(info)
main.add_command(doctor)
main.add_command(demo)
main.add_command(install)
main.add_command(sign)
main.add_command(verify)
main.add_command(compare)
# The name before; `bench` and `benchmark` sounded alike.
_alias = copy.copy(compare)
_alias.hidden = True
main.add_command(_alias, "benchmark")
