"""What a report is made of, and which pictures it shows."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edge_ad.data import Sample, ScoredSample
from edge_ad.models import Detector
from edge_ad.runs import Run, RunMetrics

_N_WORST, _N_HITS, _N_GOOD = 5, 6, 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """The material of a report: a run, and the fitted detector that draws its heat maps."""

    run: Run
    detector: Detector

    @property
    def metrics(self) -> RunMetrics:
        """The figures of the run."""
        return self.run.metrics

    @property
    def scored(self) -> Sequence[ScoredSample]:
        """The test split; empty: there is none."""
        return self.run.scored

    @property
    def held_out(self) -> list[ScoredSample]:
        """Good pictures that gave the limit."""
        return [ScoredSample(Sample(path=item.path), item.score) for item in self.run.good]

    @property
    def threshold(self) -> float:
        """Decision limit in the unit of the score."""
        return self.metrics.threshold

    @property
    def good(self) -> list[ScoredSample]:
        """Good pictures of the test split."""
        return [item for item in self.scored if not item.sample.anomalous]

    @property
    def defective(self) -> list[ScoredSample]:
        """Defective pictures of the test split."""
        return [item for item in self.scored if item.sample.anomalous]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Some pictures under a heading; `note` says what they are, or why there are none."""

    title: str
    note: str
    items: Sequence[ScoredSample]


def choose_sections(report: Report) -> list[Section]:
    """Choose the pictures to show: what goes wrong first, then what is typical."""
    if not report.scored:
        return [_highest_held_out(report), _typical_good(report, report.held_out)]
    return [
        _false_alarms(report),
        _misses(report),
        _hits(report),
        _typical_good(report, report.good),
    ]


def _highest_held_out(report: Report) -> Section:
    highest = sorted(report.held_out, key=lambda item: -item.score)[:_N_WORST]
    return Section(
        title="Most unusual good parts",
        note="Good parts that the training has not seen, highest score first.",
        items=highest,
    )


def _false_alarms(report: Report) -> Section:
    alarms = [item for item in report.good if item.score >= report.threshold]
    alarms.sort(key=lambda item: -item.score)
    if alarms:
        note = _shown(len(alarms), "good", "would be stopped, highest score first")
    elif report.good:
        note = f"None: all {len(report.good)} good test parts stay below the decision limit."
    else:
        note = "The test split has no good parts."
    return Section(title="Worst false alarms", note=note, items=alarms[:_N_WORST])


def _misses(report: Report) -> Section:
    misses = [item for item in report.defective if item.score < report.threshold]
    misses.sort(key=lambda item: item.score)
    if misses:
        note = _shown(len(misses), "defective", "would pass, lowest score first")
    elif report.defective:
        note = f"None: all {len(report.defective)} defective test parts are found."
    else:
        note = "The test split has no defective parts."
    return Section(title="Worst misses", note=note, items=misses[:_N_WORST])


def _hits(report: Report) -> Section:
    """Those nearest to the median score of their defect, one defect after the other."""
    by_label: dict[str, list[ScoredSample]] = {}
    for item in report.defective:
        if item.score >= report.threshold:
            by_label.setdefault(item.sample.label, []).append(item)
    ranked = [
        (rank, label, item)
        for label, items in by_label.items()
        for rank, item in enumerate(_nearest_to_median(items))
    ]
    ranked.sort(key=lambda entry: entry[:2])
    chosen = [item for _, _, item in ranked[:_N_HITS]]
    note = "Defective parts that are found, of each kind those with a middling score."
    return Section(
        title="Typical hits",
        note=note if chosen else "No defective part is found.",
        items=sorted(chosen, key=lambda item: item.sample.label),
    )


def _typical_good(report: Report, good: Sequence[ScoredSample]) -> Section:
    passed = [item for item in good if item.score < report.threshold]
    note = "Good parts that pass, those with a middling score."
    return Section(
        title="Typical good parts",
        note=note if passed else "No good part passes.",
        items=_nearest_to_median(passed)[:_N_GOOD],
    )


def _nearest_to_median(items: Sequence[ScoredSample]) -> list[ScoredSample]:
    if not items:
        return []
    median = statistics.median(item.score for item in items)
    return sorted(items, key=lambda item: abs(item.score - median))


def _shown(count: int, kind: str, what: str) -> str:
    parts = f"1 {kind} part" if count == 1 else f"{count} {kind} parts"
    return f"{parts} {what}" + (f"; the first {_N_WORST} are shown." if count > _N_WORST else ".")
