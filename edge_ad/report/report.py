"""What a report is made of: which pictures it shows, and how each is drawn as small JPEGs."""

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data import Sample, ScoredSample
from edge_ad.models import Detector
from edge_ad.models.leave_one_out import UNUSUAL_SHARE
from edge_ad.run_metrics import RunMetrics
from edge_ad.runs import GoodPicture, Run
from edge_ad_runtime.errors import counted
from edge_ad_runtime.model.image import Frame
from edge_ad_runtime.model.overlay import color_range, heat_map, lay_heat
from edge_ad_runtime.model.picture_file import read_frame, read_mask

_N_WORST, _N_HITS, _N_GOOD, _N_UNUSUAL = 5, 6, 3, 12

_LONGER_SIDE = 360
"""Pixels; twice what the page shows on a plain screen, so that it stays sharp on a fine one."""

_QUALITY = 85


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
    def threshold(self) -> float:
        """Decision limit in the unit of the score."""
        return self.metrics.threshold

    @property
    def good(self) -> list[ScoredSample]:
        """Good pictures of the test split."""
        return [item for item in self.run.scored if not item.sample.anomalous]

    @property
    def defective(self) -> list[ScoredSample]:
        """Defective pictures of the test split."""
        return [item for item in self.run.scored if item.sample.anomalous]

    @property
    def training(self) -> list[ScoredSample]:
        """The fitted good pictures, each scored with itself left out of the fit."""
        return [ScoredSample(Sample(path=one.path), one.score) for one in self.run.good]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Some pictures under a heading.

    Attributes:
        title: heading.
        note: what they are, or why there are none.
        items: the pictures with their scores.
        left_out: by the index of an item, its distances (patches,) with itself left out of the
            fit; the other items get the map that the detector computes.
    """

    title: str
    note: str
    items: Sequence[ScoredSample]
    left_out: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)


def choose_sections(report: Report) -> list[Section]:
    """Choose the pictures to show: doubtful training pictures, what goes wrong, what is typical."""
    if not report.run.scored:
        return [_unusual(report), _typical_good(report, report.training)]
    return [
        _unusual(report),
        _false_alarms(report),
        _misses(report),
        _hits(report),
        _typical_good(report, report.good),
    ]


def unusual_pictures(run: Run) -> list[GoodPicture]:
    """Return the training pictures to look at again: the highest 10 %, and all set aside."""
    ranked = sorted(run.good, key=lambda one: -one.score)
    count = math.ceil(UNUSUAL_SHARE * len(ranked))
    return [one for rank, one in enumerate(ranked) if rank < count or one.set_aside]


def _unusual(report: Report) -> Section:
    pictures = unusual_pictures(report.run)
    shown = pictures[:_N_UNUSUAL]
    index_of = {one.path: index for index, one in enumerate(report.run.good)}
    maps = [report.run.good_maps.get(index_of[one.path]) for one in shown]
    n_aside = sum(one.set_aside for one in pictures)
    note = (
        "Of all training pictures these look least like the others, the least usual one first. A "
        "defective part among the good ones hides defects of its kind: if you see one here, leave "
        "it out and train again."
    )
    if n_aside:
        some, them = ("1 of them is", "it") if n_aside == 1 else (f"{n_aside} of them are", "them")
        note += (
            f" {some} so far from the others that the limit was set without {them}; the detector "
            f"has learnt {them} all the same."
        )
    if len(pictures) > len(shown):
        note += f" The first {len(shown)} of {len(pictures)} are shown."
    return Section(
        title="Look at these pictures: are they good?",
        note=note,
        items=[ScoredSample(Sample(path=one.path), one.score) for one in shown],
        left_out={index: one for index, one in enumerate(maps) if one is not None},
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
    return f"{counted(count, f'{kind} part')} {what}" + (
        f"; the first {_N_WORST} are shown." if count > _N_WORST else "."
    )


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a row; `address` None: there is none, and the caption says why."""

    caption: str
    address: str | None


def make_tiles(
    report: Report, item: ScoredSample, left_out: NDArray[np.float32] | None = None
) -> list[Tile]:
    """Return picture, heat map, overlay and mask of one sample, as far as it is still there.

    Args:
        report: with the detector that computes the map.
        item: the sample and its score.
        left_out: distances (patches,) of a training picture with itself left out of the fit; None:
            of another picture.

    Raises:
        DataError: the picture or its mask cannot be read.
    """
    if not item.sample.path.is_file():
        # The limit of a run may be changed long after its pictures were tidied up.
        return [Tile(caption="this picture is no longer there", address=None)]
    full = read_frame(item.sample.path)
    detector, metrics = report.detector, report.metrics
    if left_out is None:
        anomaly_map = detector.predict([full])[0].anomaly_map
    else:
        anomaly_map = detector.map_of(left_out)
    frame = _shrink(full)
    height, width = frame.shape[:2]
    values = detector.preprocessing.map_to_frame(anomaly_map, (height, width))
    low, limit = metrics.map_range[0], metrics.map_threshold
    overlay = lay_heat(frame, values, low, limit, outline=item.score >= report.threshold)
    return [
        Tile(caption="picture", address=_address(frame)),
        Tile(caption="heat map", address=_address(heat_map(values, *color_range(low, limit)))),
        Tile(caption="overlay", address=_address(overlay)),
        _mask_tile(item, (height, width)),
    ]


def _mask_tile(item: ScoredSample, size: tuple[int, int]) -> Tile:
    if item.sample.mask_path is None or not item.sample.mask_path.is_file():
        return Tile(
            caption="no mask" if item.sample.anomalous else "good part: nothing to mark",
            address=None,
        )
    mask = read_mask(item.sample.mask_path).astype(np.uint8) * 255
    small = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return Tile(caption="mask", address=_address(np.dstack([small] * 3)))


def _shrink(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    scale = min(_LONGER_SIDE / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _address(picture: Frame) -> str:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
