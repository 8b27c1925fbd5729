"""What goes to the device and what comes back from it: bundle, marks, masks, a successor."""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_ad import PaDiM
from edge_ad.config import PaDiMConfig
from edge_ad.data import Dataset, Sample, load_category
from edge_ad.models.detector import Prediction
from edge_ad.project.bundle import CONFIG_FILE, STEPS_FILE, Device, stream_config, write_bundle
from edge_ad.project.cost import measure_cost
from edge_ad.project.folder import CategoryFolder
from edge_ad.project.job import Job
from edge_ad.project.marks import join, read_marks
from edge_ad.project.masks import Shape, draw_mask
from edge_ad.project.successor import compare_runs, retraining
from edge_ad.runs import Run
from edge_ad.train import change_limit, train
from edge_ad_runtime.errors import ConfigError, DataError, ModelFileError
from edge_ad_runtime.stream.config import parse_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def folder(data_root: Path, tmp_path: Path) -> CategoryFolder:
    import shutil

    shutil.copytree(data_root / "plate", tmp_path / "data" / "plate")
    return CategoryFolder(tmp_path / "data" / "plate")


def quick() -> PaDiM:
    return PaDiM(input_size=(32, 32), dims=8)


def test_a_configuration_says_what_was_asked_and_can_be_read() -> None:
    text = stream_config('a "b".onnx', Device(camera="left", source="rtsp://10.0.0.5/a", port=None))
    config = parse_config(tomllib.loads(text))
    (camera,) = config.cameras
    assert (camera.name, camera.source) == ("left", "rtsp://10.0.0.5/a")
    assert camera.model == Path('a "b".onnx')
    for device in (Device(camera=""), Device(source=""), Device(port=99_999)):
        with pytest.raises(ConfigError):
            stream_config("a.onnx", device)


def test_a_bundle_holds_all_that_the_device_needs(tmp_path: Path) -> None:
    model = next(GOLDEN.rglob("*.onnx"))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "edge_ad-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    write_bundle(model, tmp_path / "bundle.zip", Device(camera="left"), wheels)
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        names = archive.namelist()
        (onnx,) = [name for name in names if name.endswith(".onnx")]
        assert archive.read(onnx) == model.read_bytes()
        assert tomllib.loads(archive.read(CONFIG_FILE).decode())["model"] == onnx
        assert f"doctor --model {onnx}" in archive.read(STEPS_FILE).decode()
        assert "edge-ad-bundle/edge_ad-0.1.0-py3-none-any.whl" in names
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        write_bundle(tmp_path / "no.onnx", tmp_path / "other.zip")
    assert [path.name for path in tmp_path.glob("*.zip")] == ["bundle.zip"]


def test_marked_parts_join_once(folder: CategoryFolder, tmp_path: Path) -> None:
    marks = tmp_path / "edge-ad-marks" / "plate"
    for place, name in (("train/good", "2-left.png"), ("test/missed", "1-left.png")):
        (marks / place).mkdir(parents=True)
        source = folder.path / "test/spot/000.png"
        (marks / place / name).write_bytes(source.read_bytes())
    about = {"score": 12.5, "who": "Ada at 10.0.0.7"}
    (marks / "train/good/2-left.json").write_text(json.dumps(about))
    found = read_marks(tmp_path / "edge-ad-marks", folder)
    assert [(one.mark, one.score, one.who, one.known) for one in found] == [
        ("missed", None, "", False),
        ("false alarm", 12.5, "Ada at 10.0.0.7", False),
    ]
    for one in found:
        join(one, folder)
    assert (folder.path / "train/good/2-left.png").is_file()
    assert (folder.path / "test/missed/1-left.png").is_file()
    assert [one.known for one in read_marks(marks, folder)] == [True, True]
    with pytest.raises(DataError, match="found no folder"):
        read_marks(tmp_path / "nowhere", folder)
    with pytest.raises(DataError, match="found no marked parts of"):
        read_marks(folder.path / "test", folder)
    (tmp_path / "others/bolt/train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="it holds the products bolt: give the folder"):
        read_marks(tmp_path / "others", folder)


def test_masks_are_what_was_drawn() -> None:
    rectangle = Shape(points=((0.5, 0.5), (0.0, 0.0)))
    mask = draw_mask((11, 21), [rectangle])
    assert mask[:6, :11].all() and mask.sum() == 6 * 11
    brush = Shape(points=((0.0, 1.0), (1.0, 1.0)), width=0.1)
    eraser = Shape(points=((0.0, 0.0),), width=0.3, erases=True)
    more = draw_mask((11, 21), [brush, eraser], mask)
    assert more[10].all() and not more[0, 0] and more[5, 10]


def test_two_runs_are_judged_on_the_same_pictures(
    folder: CategoryFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(name: str) -> tuple[Run, PaDiM]:
        detector = quick()
        category = load_category("plate", folder.path.parent)
        return train(detector, category, tmp_path / name), detector

    old = trained("old")
    # A defect that the old run has never seen, and one picture less to learn from.
    folder.place("test/spot/000.png", "test", "dent")
    folder.exclude("train/good/000.png")
    new = trained("new")
    found = compare_runs(old, new, folder.pictures())
    for one in (found.before, found.after):
        assert (one.n_good, one.n_defective) == (29, 6)
    run, _ = new
    assert found.after.n_missed == sum(
        one.sample.anomalous and one.score < run.metrics.threshold for one in run.scored
    )
    assert found.after.n_false_alarms == sum(
        one.score >= run.metrics.threshold for one in run.good
    ) + sum(not one.sample.anomalous and one.score >= run.metrics.threshold for one in run.scored)
    changed = found.before.stopped ^ found.after.stopped
    assert set(found.mended) | set(found.broken) == changed
    same = compare_runs(new, new, folder.pictures())
    assert (same.mended, same.broken, same.is_better) == ((), (), True)

    # A learnt picture that is called defective today is not scored by whoever knows it by heart.
    relabelled = folder.place("train/good/001.png", "test", "dent").path.resolve()
    asked: list[Path] = []
    predictions = new[1].predictions

    def noted(dataset: Dataset, stage: str) -> Iterator[tuple[Sample, Prediction]]:
        asked.extend(sample.path for sample in dataset)
        return predictions(dataset, stage)

    monkeypatch.setattr(new[1], "predictions", noted)
    found = compare_runs(new, new, folder.pictures())
    assert found.after.n_defective == 7 and relabelled not in map(Path.resolve, asked)

    # A limit that was chosen is promised again, one that nobody chose is not.
    job = Job(
        folder=tmp_path,
        kind="train",
        category="plate",
        title="",
        arguments=("train", "padim", "--false-alarm-rate", "0.5", "--json"),
        about={},
        created_at=1.0,
    )
    assert retraining(job, run) == list(job.arguments)
    chosen = change_limit(run.folder, 0.05)
    assert retraining(job, chosen) == ["train", "padim", "--json", "--false-alarm-rate", "0.05"]


def test_a_cost_is_measured_for_all_pictures(folder: CategoryFolder) -> None:
    category = load_category("plate", folder.path.parent)
    cost = measure_cost(PaDiMConfig(input_size=(32, 32), dims=8), category)
    assert cost.fit_seconds > 0 and cost.picture_ms > 0
    assert cost.train_seconds(200, 50) > cost.train_seconds(100, 50) > 0
    for number in range(22):
        folder.exclude(f"train/good/{number:03}.png")
    with pytest.raises(DataError, match="at least 3 pictures"):
        measure_cost(PaDiMConfig(), load_category("plate", folder.path.parent))
