"""`edge-ad limit`: another false-alarm rate for a run, without fitting anything again."""

import json
from pathlib import Path

import click

from edge_ad.cli.options import prepare_training, rate_option, wrapped
from edge_ad.cli.train import test_rates


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@rate_option()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def limit(run: Path, false_alarm_rate: float, as_json: bool) -> None:
    """Set another false-alarm rate for the run folder RUN.

    The decision limit follows from the scores that the training kept: nothing is fitted again.
    metrics.json, scores.csv and the report are rewritten. A file that was exported before keeps its
    own limit until it is exported again.
    """
    prepare_training("changing the limit")
    from edge_ad.runs import Run, exported
    from edge_ad.train import change_limit

    before = Run.read(run).metrics.threshold
    changed = change_limit(run, false_alarm_rate)
    metrics = changed.metrics
    models = exported(run)
    if as_json:
        figures = {"run": str(run), "threshold_before": before}
        stale = {"export_again": [str(path) for path in models]}
        click.echo(json.dumps(metrics.to_json() | figures | stale))
        return
    now = f"limit        {metrics.threshold:.4g} instead of {before:.4g}: {metrics.threshold_rule}"
    rows = [
        wrapped(now),
        *test_rates(changed),
        *(
            f"exported     {path} still has its old limit: run `edge-ad export {run}` again"
            for path in models
        ),
    ]
    click.echo("\n".join(rows))
