"""What a data scientist types in a notebook: limits, export, plots, completion, paths as texts."""

import importlib
import inspect
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge_ad
import edge_ad_export
import edge_ad_runtime
from edge_ad.data import load_category
from edge_ad.models import PaDiM, load
from edge_ad.train import change_limit, train
from edge_ad_export import Exported, ExportOptions, exporter
from edge_ad_runtime import Scorer, list_pictures, read_frame
from edge_ad_runtime.errors import ConfigError, DataError, MissingExtraError, NotFittedError

PACKAGES = (edge_ad, edge_ad_export, edge_ad_runtime)
PORTABLE = ExportOptions(target="portable")
SCREEN = 24, 2000  # rows, characters


@pytest.fixture(scope="module")
def exported(detector: PaDiM, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return detector.export(tmp_path_factory.mktemp("export") / "plate-padim.onnx", options=PORTABLE)


@pytest.fixture(scope="module")
def detector(data_root: Path) -> PaDiM:
    return small().fit(data_root / "plate/train/good")


def test_pictures_as_a_beginner_names_them(
    detector: PaDiM, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "datasets").symlink_to(data_root)
    monkeypatch.chdir(tmp_path)
    category = load_category("plate")
    bad = edge_ad.Sample(category.test[0].path, label="bent")
    assert detector.evaluate(edge_ad.Dataset([bad])).metrics.n_anomalous == 1
    (tmp_path / "plate.onnx").touch()
    with pytest.raises(DataError, match=r"got the file plate.onnx: .*Scorer reads it"):
        load("plate.onnx")


def small() -> PaDiM:
    return PaDiM(weights="none", input_size=(32, 32), layers=["stage2"], dims=8)


def test_the_threshold_is_there_after_fit_and_after_load(detector: PaDiM, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="3 pictures"):
        small().threshold  # noqa: B018
    assert detector.good is not None
    assert detector.threshold == detector.good.calibrate().limit() > 0
    detector.save(str(tmp_path))
    loaded = load(str(tmp_path))
    assert (loaded.limits, loaded.calibration) == (detector.limits, detector.calibration)


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of files")
def test_a_saved_detector_is_for_those_whom_the_umask_allows(
    detector: PaDiM, tmp_path: Path
) -> None:
    before = os.umask(0o027)
    try:
        detector.save(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"detector.json": 0o640, "detector.safetensors": 0o640}


def test_another_rate_moves_the_limit_without_a_fit(detector: PaDiM, tmp_path: Path) -> None:
    detector.save(tmp_path)
    loaded = load(tmp_path)
    before = loaded.threshold
    assert loaded.set_false_alarm_rate(0.3) == loaded.threshold < before
    assert loaded.limits is not None and loaded.limits.false_alarm_rate == 0.3
    assert loaded.set_false_alarm_rate(detector.calibration.rate) == before  # type: ignore[union-attr]
    with pytest.raises(ConfigError):
        loaded.set_false_alarm_rate(2)


def test_a_run_has_the_limit_that_it_was_given_last(data_root: Path, tmp_path: Path) -> None:
    found = small()
    run = train(found, load_category("plate", str(data_root)), str(tmp_path))
    assert found.threshold == run.metrics.threshold == load(run.folder).threshold
    changed = change_limit(str(run.folder), 0.2)
    assert load(run.folder).threshold == changed.metrics.threshold != run.metrics.threshold


@pytest.mark.slow
def test_export_of_a_detector_in_memory(
    detector: PaDiM, exported: Exported, data_root: Path
) -> None:
    assert exported.parity.n_training == 24
    scorer = Scorer(exported.path, device="cpu")
    assert scorer.info.category == "plate"
    assert scorer.threshold == detector.threshold
    assert scorer.info.calibration == detector.calibration
    picture = list_pictures(data_root / "plate/test")[0]
    assert scorer.score(read_frame(picture)).score == pytest.approx(
        detector.predict(picture)[0].score, rel=1e-3
    )


@pytest.mark.slow
def test_export_of_a_loaded_detector_needs_pictures(
    detector: PaDiM, data_root: Path, tmp_path: Path
) -> None:
    detector.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    with pytest.raises(DataError, match="pictures to compare"):
        loaded.export(tmp_path / "x.onnx")
    test = load_category("plate", data_root).test
    exported = loaded.export(str(tmp_path / "x.onnx"), pictures=test, options=PORTABLE)
    assert exported.info.category == "x" and exported.parity.image_auroc is not None
    with pytest.raises(NotFittedError):
        small().export(tmp_path / "y.onnx", pictures=test)


def test_export_of_a_run_is_that_of_the_command(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr(exporter, "_export", jobs.append)
    run = train(small(), load_category("plate", data_root), tmp_path)
    load(run.folder).export(str(tmp_path / "x.onnx"))
    exporter.export(str(run.folder), str(tmp_path / "x.onnx"))
    first, second = jobs
    assert first.info.category == "plate" and len(first.pictures) == 24 + 12
    assert first.info.metrics == second.info.metrics == run.metrics.test_figures()
    assert first.output == second.output == tmp_path / "x.onnx"


def test_frames_in_memory_are_enough_for_fit_and_export(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [read_frame(path) for path in list_pictures(data_root / "plate/train/good")] * 3
    jobs: list[Any] = []
    monkeypatch.setattr(exporter, "_export", jobs.append)
    small().fit(frames).export("x.onnx")
    read = [frame for _, frame in jobs[0].pictures.read()]
    assert 0 < len(read) <= 64
    np.testing.assert_array_equal(read[1], frames[2])


def test_predict_takes_what_fit_takes(detector: PaDiM, data_root: Path) -> None:
    folder = data_root / "plate/test/spot"
    paths = list_pictures(folder)
    frames = [read_frame(path) for path in paths]
    expected = [item.score for item in detector.predict(frames)]
    for form in (folder, str(folder), paths, np.stack(frames), iter([np.stack(frames)])):
        assert [item.score for item in detector.predict(form)] == expected
    for one in (paths[0], str(paths[0]), frames[0]):
        assert [item.score for item in detector.predict(one)] == expected[:1]


@pytest.mark.slow
def test_plots_are_figures_that_can_be_saved(
    detector: PaDiM, exported: Exported, data_root: Path, tmp_path: Path
) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    path = list_pictures(data_root / "plate/test/spot")[0]
    figure = detector.plot(str(path))
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "part.png")
    drawn = read_frame(tmp_path / "part.png")
    assert drawn.std() > 10
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == ["frame", "overlay", "anomaly map"]
    assert "ANOMALOUS" in figure.get_suptitle()
    result = Scorer(exported.path, device="cpu").score(read_frame(path))
    assert result.plot().get_suptitle() == figure.get_suptitle()
    assert len(result.plot(read_frame(path)).axes) == len(figure.axes)
    with pytest.raises(DataError, match="uint8"):
        result.plot(np.zeros((4, 4), np.uint8))
    assert pyplot.get_fignums() == []  # a notebook would show them twice


def test_a_plot_without_matplotlib_says_what_to_install(
    detector: PaDiM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib'.*edge-ad\[plot\]"):
        detector.plot(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.slow
def test_representations_fit_on_a_screen(
    detector: PaDiM, exported: Exported, data_root: Path, tmp_path: Path
) -> None:
    category = load_category("plate", data_root)
    evaluation = detector.evaluate(category.test)
    scorer = Scorer(exported.path, device="cpu")
    result = scorer.score(np.full((32, 32, 3), 255, np.uint8))
    shown = (
        small(),
        detector,
        category,
        evaluation,
        exported,
        scorer,
        scorer.info,
        result,
        detector.limits,
        detector.calibration,
        detector.good,
        train(small(), category, tmp_path),
    )
    for item in shown:
        text = repr(item)
        assert text.count("\n") < SCREEN[0] and len(text) < SCREEN[1], text[:3000]
    assert "threshold" in repr(detector) and "not fitted" in repr(small())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_public_names_complete_and_load(package: Any) -> None:
    code = f"import {package.__name__} as p; print(*dir(p))"
    listed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert set(package.__all__) <= set(listed.stdout.split())
    for name in package.__all__:
        assert getattr(package, name) is not None


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    modules = [*PACKAGES, *map(importlib.import_module, ("edge_ad.data", "edge_ad.models"))]
    for module in modules:
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found):
                for attribute, method in inspect.getmembers(found):
                    public = attribute == "__init__" or not attribute.startswith("_")
                    ours = (getattr(method, "__module__", "") or "").startswith("edge_ad")
                    if public and ours and inspect.isroutine(method):
                        yield f"{name}.{attribute}", method
            elif inspect.isroutine(found):
                yield name, found


def test_every_public_path_argument_takes_text_as_well() -> None:
    narrow = []
    found = dict(public_callables())
    for name, function in found.items():
        for parameter in inspect.signature(function).parameters.values():
            text = str(parameter.annotation)
            if "Path" in text and "str" not in text and parameter.name != "self":
                narrow.append(f"{name}({parameter})")
    # What edge-ad itself hands out holds paths; a sample is made by its user as well.
    records = (
        "Sample.__init__",
        "Exported.__init__",
        "CapturedFrame.__init__",
        "StreamConfig.__init__",
    )
    assert [entry for entry in narrow if not entry.startswith(records)] == []
    assert len(found) > 60
    assert edge_ad.Sample(path=typing.cast(Path, "a/b.png")).path == Path("a/b.png")
