"""The report: what it says, what it shows, and that it needs nothing but itself."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_ad.data import Sample, ScoredSample
from edge_ad.models import Detector, Prediction
from edge_ad.report.charts import table_choices
from edge_ad.report.page import write_report
from edge_ad.report.report import Report, choose_sections
from edge_ad.run_metrics import RunMetrics, decision_rates
from edge_ad.runs import GoodPicture, Run
from edge_ad_runtime.errors import DataError
from edge_ad_runtime.model.calibration import calibrate
from edge_ad_runtime.model.image import Frame, Preprocessing

VOID = {"meta", "img"}


class Balance(HTMLParser):
    """Fails on tags that do not match; collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "iframe")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class WarmSquare:
    """Stands in for a detector: a warm square in the upper left of every map."""

    def __init__(self, resize: int | None = None) -> None:
        self.preprocessing = Preprocessing(input_size=(64, 64), resize=resize)

    def predict(self, frames: Sequence[Frame]) -> list[Prediction]:
        anomaly_map = np.ones((64, 64), np.float32)
        anomaly_map[8:24, 8:24] = 5
        return [Prediction(5.0, anomaly_map) for _ in frames]

    def map_of(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.kron(distance.reshape(2, 2), np.ones((32, 32), np.float32))


def samples(folder: Path, scores: Sequence[float], label: str = "good") -> list[ScoredSample]:
    """Tall pictures with given scores, and a mask for each defective one."""
    made = []
    for index, score in enumerate(scores):
        path = folder / label / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((120, 50, 3), 90, np.uint8))
        mask = None
        if label != "good":
            mask = path.with_name(f"{index:02}_mask.bmp")
            cv2.imwrite(str(mask), np.full((120, 50), 255, np.uint8))
        made.append(ScoredSample(Sample(path=path, label=label, mask_path=mask), score))
    return made


def make_report(
    folder: Path,
    good: Sequence[float] = (),
    cut: Sequence[float] = (),
    bent: Sequence[float] = (),
    **metrics: Any,
) -> Report:
    scored = [
        *samples(folder / "test", good),
        *samples(folder / "test", cut, "cut"),
        *samples(folder / "test", bent, "bent"),
    ]
    figures: dict[str, Any] = {
        "method": "padim",
        "category": "washer <M4>",
        "backbone": "efficientnet_lite0",
        "input_size": (64, 64),
        "seed": 0,
        "n_train": 3,
        "n_skipped": 0,
        "content_hash": "00",
        "fit_seconds": 1.0,
        "threshold": 4.0,
        "threshold_rule": "a rule",
        "false_alarm_rate": 0.01,
        "score_range": (1.0, 3.0),
        "map_range": (0.5, 3.0),
        "map_threshold": 2.9,
    }
    good_parts = [
        GoodPicture(path=item.sample.path, score=item.score, map_min=0.5, map_max=3.0)
        for item in samples(folder / "train", [1, 2, 3])
    ]
    figures |= metrics
    alarms, misses = decision_rates(scored, figures["threshold"])
    figures |= {"test_false_alarm_rate": alarms, "test_miss_rate": misses}
    run = Run(
        folder=folder,
        metrics=RunMetrics(**figures),
        scored=tuple(scored),
        good=tuple(good_parts),
        good_maps={2: np.array([1, 1, 1, 3], np.float32)},
    )
    return Report(run=run, detector=cast("Detector", WarmSquare()))


def page_of(report: Report, folder: Path) -> str:
    path = folder / "report.html"
    write_report(path, report)
    page = path.read_text()
    balance = Balance()
    balance.feed(page)
    assert not balance.open
    assert all(address.startswith("data:image/jpeg;base64,") for address in balance.addresses)
    return page


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_the_page_stands_alone_and_says_the_verdict(tmp_path: Path) -> None:
    report = make_report(
        tmp_path,
        good=[1, 2, 4.0, 5],
        cut=[3, 6, 9],
        image_auroc=0.98765,
        pixel_auroc=0.9,
        pixel_pro=0.8,
        n_skipped=2,
        backbone="efficientnet_lite0",
        input_size=(64, 64),
        fit_seconds=1.234,
        versions={"torch": "2.9"},
        threshold_rule="a promise",
    )
    page = page_of(report, tmp_path)
    text = text_of(page)
    assert "2 of 4 good test parts would be stopped" in text
    assert "1 of 3 defective test parts would pass" in text
    assert "Left out: 2 unreadable pictures" in text
    for figure in (
        "50.0 %",
        "33.3 %",
        "98.77 %",
        "90.00 %",
        "80.00 %",
        "64 x 64 pixels",
        "1.2 s",
        "a promise",
    ):
        assert figure in text
    assert "washer &lt;M4&gt;" in page and "<M4>" not in page
    assert "test/cut/00.png" in text and str(tmp_path) not in page
    # Three pictures a row, and the mask of each defective part.
    rows, masked = page.count("<article>"), page.count("<figcaption>mask<")
    assert (rows, masked) == (1 + 2 + 1 + 2 + 2, 3)
    assert page.count("<img") == 3 * rows + masked


def test_the_histogram_counts_every_score(tmp_path: Path) -> None:
    page = page_of(make_report(tmp_path, good=[1, 1, 2], cut=[3, 6, 6, 6]), tmp_path)
    for name, count in (
        ("good training parts", 3),
        ("good test parts", 3),
        ("defective test parts", 4),
    ):
        bars = re.findall(rf"<title>(\d+) {name}, ", page)
        assert sum(map(int, bars)) == count
    assert "decision limit 4" in page


@pytest.mark.parametrize("score", [0.0, 7.0])
def test_equal_scores_still_give_a_histogram(tmp_path: Path, score: float) -> None:
    report = make_report(tmp_path, good=[score] * 3, cut=[score], threshold=score)
    assert "nan" not in page_of(report, tmp_path).split("<svg")[1].split("</svg>")[0]


def test_sections_show_the_worst_first(tmp_path: Path) -> None:
    report = make_report(
        tmp_path, good=[1, 2, 3, 4, 6, 5, 9, 8, 7], cut=[3.5, 1, 5, 50, 6, 7], bent=[8]
    )
    unusual, alarms, misses, hits, good = choose_sections(report)
    assert [item.score for item in unusual.items] == [3]
    assert [item.score for item in alarms.items] == [9, 8, 7, 6, 5]
    assert "6 good parts" in alarms.note and "first 5" in alarms.note
    assert [item.score for item in misses.items] == [1, 3.5]
    assert hits.items[0].sample.label == "bent"
    assert [item.score for item in hits.items[1:]] == [6, 7, 5, 50]
    assert good.items[0].score == 2


def test_sections_say_why_they_are_empty(tmp_path: Path) -> None:
    perfect = page_of(make_report(tmp_path, good=[1, 2], cut=[8, 9]), tmp_path)
    assert "all 2 good test parts stay below" in perfect
    assert "all 2 defective test parts are found" in perfect
    only_good = text_of(page_of(make_report(tmp_path, good=[1, 5]), tmp_path))
    assert "The test split has no defective parts." in only_good
    assert "no defective parts to test with" in only_good
    hopeless = text_of(page_of(make_report(tmp_path, cut=[1]), tmp_path))
    assert "No defective part is found." in hopeless and "no good test parts" in hopeless


def test_no_test_split(tmp_path: Path) -> None:
    text = text_of(page_of(make_report(tmp_path), tmp_path))
    assert "There is no test split" in text
    assert "Look at these pictures" in text and "Worst misses" not in text


def test_no_masks(tmp_path: Path) -> None:
    report = make_report(tmp_path, good=[1], cut=[9], image_auroc=1.0, pixel_auroc=None)
    (item,) = report.defective
    assert item.sample.mask_path is not None
    item.sample.mask_path.unlink()
    bare = ScoredSample(Sample(path=item.sample.path, label="cut"), 9.0)
    run = replace(report.run, scored=(*report.good, bare))
    without = Report(run=run, detector=report.detector)
    page = page_of(without, tmp_path)
    assert "no masks to compare with" in page and "<div>no mask</div>" in page


def test_a_centre_crop_is_laid_where_it_was_cut(tmp_path: Path) -> None:
    report = make_report(tmp_path, good=[1], cut=[9])
    cropped = cast("Detector", WarmSquare(resize=80))
    page_of(Report(run=report.run, detector=cropped), tmp_path)


def test_a_picture_that_has_gone_since_is_told_in_its_row(tmp_path: Path) -> None:
    report = make_report(tmp_path, good=[1], cut=[9])
    report.defective[0].sample.path.unlink()
    assert "this picture is no longer there" in text_of(page_of(report, tmp_path))


def test_a_damaged_picture_leaves_no_half_report(tmp_path: Path) -> None:
    report = make_report(tmp_path, good=[1], cut=[9])
    report.defective[0].sample.path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"00\.png"):
        write_report(tmp_path / "new.html", report)
    assert not list(tmp_path.glob("*new*"))


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot write the report"):
        write_report(tmp_path / "gone" / "report.html", make_report(tmp_path))


def calibrated(folder: Path, **figures: Any) -> Report:
    """A report with a promise and a test split of both kinds."""
    scores = np.linspace(1, 3, 60)
    promise = calibrate(scores, scores, rate=0.05)
    return make_report(
        folder,
        good=[1, 2, 2.5, 3.5],
        cut=[2, 3, 6, 9],
        calibration=promise,
        false_alarm_rate=0.05,
        threshold=promise.limit(),
        **figures,
    )


def test_the_promise_and_what_a_guarantee_needs(tmp_path: Path) -> None:
    text = text_of(page_of(calibrated(tmp_path), tmp_path))
    assert "On average 5 % of good parts like those of the training" in text
    assert "5 % 59 60 (enough)" in text and "1 % 299 60" in text and "0.1 % 2,995 60" in text


def test_the_trade_off_is_counted_on_the_test_split(tmp_path: Path) -> None:
    report = calibrated(tmp_path)
    calibration = report.metrics.calibration
    assert calibration is not None
    for choice in table_choices(calibration, report.run.scored):
        limit = calibration.limit(choice.rate)
        assert choice.limit == limit
        assert choice.caught == np.mean([score >= limit for score in (2, 3, 6, 9)])
        assert choice.false_alarms == np.mean([score >= limit for score in (1, 2, 2.5, 3.5)])
    page = page_of(report, tmp_path)
    assert "chosen: 5 %, 50 % caught" in page
    assert "--false-alarm-rate" in page


def test_without_defects_there_is_no_trade_off(tmp_path: Path) -> None:
    scores = np.linspace(1, 3, 60)
    page = page_of(make_report(tmp_path, good=[1], calibration=calibrate(scores, scores)), tmp_path)
    assert "What another limit would do" not in page


def test_a_training_picture_shows_its_map_without_itself(tmp_path: Path) -> None:
    page = page_of(make_report(tmp_path, good=[1], cut=[9]), tmp_path)
    section = page.split("are they good?")[1].split("</section>")[0]
    assert section.count("<article>") == 1 and "--exclude" in section


def test_names_are_escaped(tmp_path: Path) -> None:
    report = make_report(tmp_path, good=[1])
    odd = ScoredSample(
        Sample(path=report.good[0].sample.path, label="<script>alert(1)</script>"), 9.0
    )
    run = replace(report.run, scored=(odd, *report.good))
    assert "<script>" not in page_of(Report(run=run, detector=report.detector), tmp_path)
