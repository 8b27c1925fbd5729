"""The report's HTML: one file with its style and pictures inside, no script, nothing fetched."""

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from edge_ad.config import CONFIGS
from edge_ad.data import ScoredSample
from edge_ad.evaluate import decision_rates
from edge_ad.report.histogram import draw_histogram
from edge_ad.report.pictures import Tile, make_tiles
from edge_ad.report.report import Report, Section, choose_sections
from edge_ad.runs import RunMetrics
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.files import write_whole

_NONE = "–"  # noqa: RUF001 - the dash is meant

_FACTS = (
    ("Backbone", "backbone"),
    ("Feature maps", "layers"),
    ("Input size (height x width)", "input_size"),
    ("Good parts in training", "n_train"),
    ("Unreadable pictures left out", "n_skipped"),
    ("Training time", "fit_seconds"),
    ("Decision limit", "threshold_rule"),
    ("False alarms to expect above it", "false_alarm_rate"),
    ("Average precision, image", "image_ap"),
    ("Best F1, image", "image_f1"),
    ("Seed", "seed"),
    ("Device", "device"),
    ("Software", "versions"),
    ("Hash of the training pictures", "content_hash"),
)
"""Heading and key in `metrics.json` of each row of the table at the end."""


def write_report(path: Path, report: Report) -> None:
    """Write one self-contained HTML file; it is whole or not there.

    Raises:
        DataError: a picture cannot be read, or the file cannot be written.
    """
    page = _page(report)
    try:
        write_whole(path, page.encode())
    except OSError as error:
        raise DataError(
            f"cannot write the report {path}: {error.strerror}: choose another folder"
        ) from error


def _page(report: Report) -> str:
    root = _common_folder([*report.scored, *report.held_out])
    sections = [_section(report, section, root) for section in choose_sections(report)]
    method = CONFIGS[report.metrics.method].title
    resources = files("edge_ad.report")
    return Template(resources.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{report.metrics.category}: {method} report"),
        style=resources.joinpath("report.css").read_text(encoding="utf-8"),
        category=escape(report.metrics.category),
        method=escape(method),
        date=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        verdict=_verdict(report),
        cards=_cards(report),
        histogram=_histogram(report),
        sections="".join(sections),
        facts=_facts(report.metrics),
    )


def _verdict(report: Report) -> str:
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
    if not report.scored:
        sentences.append(
            "There is no test split: the report shows good parts only, and how often defects are "
            "found is unknown."
        )
    elif not report.defective:
        sentences.append("How often defects are found is unknown: there are none to test with.")
    if report.metrics.n_skipped:
        sentences.append(f"{report.metrics.n_skipped} unreadable pictures were left out.")
    return " ".join(sentences)


def _cards(report: Report) -> str:
    alarm_rate, miss_rate = decision_rates(report.scored, report.threshold)
    metrics = report.metrics
    n_good, n_defective = len(report.good), len(report.defective)
    absent = _absent(report)
    return "".join(
        [
            _card("False alarms", _percent(alarm_rate, 1), _of(n_good, "good test parts")),
            _card("Missed defects", _percent(miss_rate, 1), _of(n_defective, "defective parts")),
            _card(
                "Image ROC-AUC",
                _percent(metrics.image_auroc),
                absent or "good and defective parts told apart",
            ),
            _card(
                "Pixel ROC-AUC",
                _percent(metrics.pixel_auroc),
                absent or _masks_or(metrics, "defective pixels told apart"),
            ),
            _card(
                "Pixel PRO",
                _percent(metrics.pixel_pro),
                absent or _masks_or(metrics, "overlap with each defective region"),
            ),
            _card("Decision limit", f"{report.threshold:.4g}", "scores from here on are stopped"),
        ]
    )


def _of(count: int, what: str) -> str:
    return f"of {count} {what}" if count else f"no {what} to test with"


def _absent(report: Report) -> str | None:
    """Say why there are no figures that need good and defective parts; None: there are."""
    if not report.scored:
        return "no test split"
    if not report.defective:
        return "no defective test parts"
    return None if report.good else "no good test parts"


def _masks_or(metrics: RunMetrics, note: str) -> str:
    return "no masks to compare with" if metrics.pixel_auroc is None else note


def _card(name: str, value: str, note: str) -> str:
    return (
        f'<div class="card"><div class="name">{name}</div><div class="value">{value}</div>'
        f'<div class="note">{note}</div></div>'
    )


def _percent(share: float | None, digits: int = 2) -> str:
    return _NONE if share is None else f"{100 * share:.{digits}f} %"


def _histogram(report: Report) -> str:
    drawing = draw_histogram(
        held_out=[item.score for item in report.held_out],
        good=[item.score for item in report.good],
        defective=[item.score for item in report.defective],
        threshold=report.threshold,
    )
    series = (
        ("good", "good test parts", len(report.good)),
        ("held-out", "good parts held out for the limit", len(report.held_out)),
        ("defective", "defective test parts", len(report.defective)),
    )
    legend = "".join(
        f'<span><i class="{css_class}"></i>{name} ({count})</span>'
        for css_class, name, count in series
        if count
    )
    return f'<div class="legend">{legend}</div><div class="scroll">{drawing}</div>'


def _section(report: Report, section: Section, root: Path) -> str:
    rows = "".join(_row(report, item, root) for item in section.items)
    count = f' <span class="count">{len(section.items)}</span>' if section.items else ""
    return f"<section><h2>{section.title}{count}</h2><p>{escape(section.note)}</p>{rows}</section>"


def _row(report: Report, item: ScoredSample, root: Path) -> str:
    path = escape(os.path.relpath(item.sample.path, root))
    tiles = "".join(_tile(tile) for tile in make_tiles(report, item))
    kind = "defective" if item.sample.anomalous else "good"
    sign = "≥" if item.score >= report.threshold else "&lt;"
    verdict = "anomalous" if item.score >= report.threshold else "good"
    return (
        f'<article><header><span class="path">{path}</span>'
        f'<span class="label {kind}">{escape(item.sample.label)}</span>'
        f'<span class="score">score <b>{item.score:.4g}</b> {sign} {report.threshold:.4g}: '
        f'{verdict}</span></header><div class="tiles">{tiles}</div></article>'
    )


def _tile(tile: Tile) -> str:
    if tile.address is None:
        return f'<figure class="empty"><div>{tile.caption}</div></figure>'
    return (
        f'<figure><img src="{tile.address}" alt="{tile.caption}">'
        f"<figcaption>{tile.caption}</figcaption></figure>"
    )


def _facts(metrics: RunMetrics) -> str:
    return "".join(
        f"<tr><th>{heading}</th><td>{escape(_fact(key, getattr(metrics, key)))}</td></tr>"
        for heading, key in _FACTS
        if getattr(metrics, key) is not None
    )


def _fact(key: str, value: Any) -> str:
    if key == "input_size":
        return f"{value[0]} x {value[1]} pixels"
    if key == "fit_seconds":
        return f"{value:.1f} s"
    if key == "false_alarm_rate":
        return f"{_percent(value, 1)} of good parts"
    if key in ("image_ap", "image_f1"):
        return _percent(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _common_folder(items: list[ScoredSample]) -> Path:
    """Return what all pictures have in common, so that paths stay short."""
    return Path(os.path.commonpath([item.sample.path.absolute().parent for item in items]))
