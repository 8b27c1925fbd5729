"""The report's HTML: one file with its style and pictures inside, no script, nothing fetched."""

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edge_ad.config import CONFIGS
from edge_ad.data import ScoredSample
from edge_ad.report.charts import draw_histogram, draw_trade_off, table_choices
from edge_ad.report.report import (
    Report,
    Section,
    Tile,
    choose_sections,
    make_tiles,
    unusual_pictures,
)
from edge_ad.run_metrics import RunMetrics
from edge_ad_runtime.errors import DataError, counted
from edge_ad_runtime.files import write_whole
from edge_ad_runtime.model.calibration import percent, pictures_for_guarantee

_NONE = "–"  # noqa: RUF001 - the dash is meant

_GUARANTEED = (0.05, 0.01, 0.001)

_FACTS = (
    ("Backbone", "backbone"),
    ("Feature maps", "layers"),
    ("Input size (height x width)", "input_size"),
    ("Good parts in training", "n_train"),
    ("Directions in which each was learnt", "turns"),
    ("Unreadable pictures left out", "n_skipped"),
    ("Training time", "fit_seconds"),
    ("Decision limit", "threshold_rule"),
    ("Average precision, image", "image_ap"),
    ("Best F1, image", "image_f1"),
    ("Seed", "seed"),
    ("Device", "device"),
    ("Software", "versions"),
    ("Hash of the training pictures", "content_hash"),
)
"""Heading and field of `RunMetrics` of each row of the table at the end."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One picture of a section, ready for the template."""

    path: str
    label: str
    kind: str
    score: float
    sign: str
    verdict: str
    tiles: list[Tile]


def write_report(path: Path, report: Report) -> None:
    """Write one self-contained HTML file; it is whole or not there.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    page = _page(report)
    try:
        write_whole(path, page.encode(errors="replace"))
    except OSError as error:
        raise DataError(
            f"cannot write the report {path}: {error.strerror}: choose another folder"
        ) from error


def _page(report: Report) -> str:
    environment = Environment(
        loader=PackageLoader("edge_ad", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"percent": _percent, "rate": percent}
    metrics, calibration = report.metrics, report.metrics.calibration
    trade_off, choices = None, []
    if calibration is not None and report.defective:
        trade_off = Markup(draw_trade_off(calibration, report.run.scored))
        choices = table_choices(calibration, report.run.scored)
    root = _common_folder([*report.run.scored, *report.training])
    style = files("edge_ad.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        metrics=metrics,
        method=CONFIGS[metrics.method].title,
        style=Markup(style),
        date=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        verdict=_verdict(report),
        promise=_promise(metrics),
        cards=list(_cards(report)),
        series=(
            ("training", "good training parts", len(report.training)),
            ("good", "good test parts", len(report.good)),
            ("defective", "defective test parts", len(report.defective)),
        ),
        histogram=_histogram(report),
        trade_off=trade_off,
        choices=choices,
        rate=metrics.false_alarm_rate,
        # Customers read this file: nothing of the workstation's folders is in it.
        folder=shlex.quote("/".join(report.run.folder.parts[-3:])),
        sections=[_section(report, section, root) for section in choose_sections(report)],
        guarantees=[(rate, pictures_for_guarantee(rate)) for rate in _GUARANTEED]
        if calibration
        else [],
        n=calibration.n if calibration else 0,
        facts=list(_facts(metrics)),
    )


def _verdict(report: Report) -> Markup:
    """Say in a sentence what the figures mean on the line."""
    alarms = sum(item.score >= report.threshold for item in report.good)
    misses = sum(item.score < report.threshold for item in report.defective)
    sentences = []
    if report.good:
        sentences.append(
            f"<b>{alarms} of {len(report.good)}</b> good test parts would be stopped by mistake."
        )
    if report.defective:
        sentences.append(
            f"<b>{misses} of {len(report.defective)}</b> defective test parts would pass."
        )
    if not report.run.scored:
        sentences.append(
            "There is no test split: the report shows good parts only, and how many defects are "
            "found is unknown."
        )
    elif not report.defective:
        sentences.append(
            "How many defects are found is unknown: there are no defective test parts."
        )
    if report.metrics.n_skipped:
        sentences.append(f"Left out: {counted(report.metrics.n_skipped, 'unreadable picture')}.")
    return Markup(" ".join(sentences))


def _promise(metrics: RunMetrics) -> str | None:
    if metrics.calibration is None:
        return None
    promise = metrics.calibration.promise()
    return f"{promise[0].upper()}{promise[1:]}."


def _cards(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and note of each card."""
    metrics = report.metrics
    n_good, n_defective = len(report.good), len(report.defective)
    absent = _absent(report)
    no_masks = "no masks to compare with" if metrics.pixel_auroc is None else None
    limit = f"promised: {percent(metrics.false_alarm_rate)} false alarms"
    yield "Decision limit", f"{report.threshold:.4g}", limit
    good = _of(n_good, "good")
    yield "False alarms", _percent(metrics.test_false_alarm_rate), good
    defective = _of(n_defective, "defective")
    yield "Missed defects", _percent(metrics.test_miss_rate), defective
    together = absent or "good and defective parts told apart"
    yield "Image ROC-AUC", _percent(metrics.image_auroc, 2), together
    pixels = absent or no_masks or "defective pixels told apart"
    yield "Pixel ROC-AUC", _percent(metrics.pixel_auroc, 2), pixels
    regions = absent or no_masks or "overlap with each defective region"
    yield "Pixel PRO", _percent(metrics.pixel_pro, 2), regions


def _of(count: int, kind: str) -> str:
    return f"of {count} {kind} test parts" if count else f"no {kind} parts to test with"


def _absent(report: Report) -> str | None:
    """Say why there are no figures that need good and defective parts; None: there are."""
    if not report.run.scored:
        return "no test split"
    if not report.defective:
        return "no defective test parts"
    return None if report.good else "no good test parts"


def _percent(share: float | None, digits: int = 1) -> str:
    return _NONE if share is None else f"{100 * share:.{digits}f} %"


def _histogram(report: Report) -> Markup:
    return Markup(
        draw_histogram(
            training=[item.score for item in report.training],
            good=[item.score for item in report.good],
            defective=[item.score for item in report.defective],
            threshold=report.threshold,
        )
    )


def _section(report: Report, section: Section, root: Path) -> Mapping[str, Any]:
    rows = [
        _row(report, item, root, make_tiles(report, item, section.left_out.get(index)))
        for index, item in enumerate(section.items)
    ]
    command = None
    if section.left_out:
        first = os.path.relpath(unusual_pictures(report.run)[0].path, root)
        command = (
            f"edge-ad train {report.metrics.method} --class {shlex.quote(report.metrics.category)} "
            f"--exclude {shlex.quote(first)}"
        )
    return {"title": section.title, "note": section.note, "rows": rows, "command": command}


def _row(report: Report, item: ScoredSample, root: Path, tiles: list[Tile]) -> _Row:
    stopped = item.score >= report.threshold
    return _Row(
        path=os.path.relpath(item.sample.path, root),
        label=item.sample.label,
        kind="defective" if item.sample.anomalous else "good",
        score=item.score,
        sign="≥" if stopped else "<",
        verdict="anomalous" if stopped else "good",
        tiles=tiles,
    )


def _facts(metrics: RunMetrics) -> Iterator[tuple[str, str]]:
    for heading, name in _FACTS:
        value = getattr(metrics, name)
        if value is not None:
            yield heading, _fact(name, value)


def _fact(name: str, value: Any) -> str:
    if name == "input_size":
        return f"{value[0]} x {value[1]} pixels"
    if name == "fit_seconds":
        return f"{value:.1f} s"
    if name in ("image_ap", "image_f1"):
        return _percent(value, 2)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {version}" for key, version in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _common_folder(items: list[ScoredSample]) -> Path:
    """Return what all pictures have in common, so that paths stay short."""
    return Path(os.path.commonpath([item.sample.path.absolute().parent for item in items]))
