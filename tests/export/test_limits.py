"""The decision limit of an exported file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from edge_ad.cli import main
from edge_ad.data import Dataset, Sample, load_category
from edge_ad.evaluate import Evaluator
from edge_ad.models import Detector, Fusion, PaDiM, PatchCore, load
from edge_ad.train import train
from edge_ad_export import Exported, ExportOptions, export
from edge_ad_export.int8.padim import RoundedGaussians
from edge_ad_export.int8.quantise import ACTIVATION_MAX
from edge_ad_export.limits import with_own_limits
from edge_ad_export.parity import Parity, ProofError
from edge_ad_export.proof import Comparison
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ConfigError
from edge_ad_runtime.model.picture_file import list_pictures, read_frame

SIZE = (32, 64)


def fit(paths: Sequence[Path]) -> PaDiM:
    samples = [Sample(path=path) for path in paths]
    return PaDiM(weights="none", input_size=SIZE, seed=1).fit(Dataset(samples))


def rounded_score(detector: PaDiM, path: Path) -> float:
    """The score by the arithmetic of the integer graph."""
    frame = detector.preprocessing.apply(read_frame(path))
    rounded = RoundedGaussians(detector)
    with torch.inference_mode():
        features: Tensor = detector.embed(torch.from_numpy(frame[np.newaxis]))  # (P, d, 1)
        centred = features * rounded.gains[:, None] - rounded.means[:, :, None]
        scale = centred.abs().max() / ACTIVATION_MAX
        steps = (centred / scale).round()
        squared = torch.zeros(len(features))
        for block in rounded.blocks:
            factors = torch.from_numpy(block.integers).float().transpose(1, 2)  # exact in float32
            whitened = factors @ steps[:, : factors.shape[2]]
            whitened *= torch.from_numpy(block.scales).transpose(1, 2)
            squared += whitened.square().sum(dim=(1, 2))
        return float(detector.smooth(squared.sqrt()[None] * scale).amax())


def test_left_out_scores_are_those_of_rounded_refits(data_root: Path) -> None:
    paths = list_pictures(data_root / "plate/train/good")
    detector = fit(paths)
    assert detector.good is not None
    refitted = [
        rounded_score(fit([other for other in paths if other != path]), path) for path in paths[:8]
    ]
    relative = detector.good.scores[:8] / refitted - 1
    assert abs(relative.mean()) < 0.002  # what the limit depends on
    assert np.abs(relative).max() < 0.01


@pytest.mark.slow
def test_the_arithmetic_is_that_of_the_file(run: Path, exported: Exported, data_root: Path) -> None:
    assert exported.parity.precision == "int8"
    detector = load(run)
    assert isinstance(detector, PaDiM)
    scorer = Scorer(exported.path, device="cpu")
    for path in list_pictures(data_root / "plate/test")[::4]:
        got = scorer.score(read_frame(path)).score
        assert rounded_score(detector, path) == pytest.approx(got, rel=2e-4)


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    category = load_category("plate", data_root)
    detector = PaDiM(weights="none", input_size=SIZE)
    return train(detector, category, tmp_path_factory.mktemp("results")).folder


@pytest.fixture(scope="module")
def exported(run: Path) -> Exported:
    return export(run)


def test_the_file_keeps_the_promise(run: Path, exported: Exported) -> None:
    trained = json.loads((run / "metrics.json").read_text())
    info = exported.info
    assert info.calibration is not None
    # Six good test pictures are too few to tell a shift.
    assert info.threshold == trained["threshold"] == info.calibration.limit()
    assert info.map_threshold == info.calibration.map_limit()
    assert info.false_alarm_rate == info.calibration.rate == trained["calibration"]["rate"]
    assert info.threshold_rule == info.calibration.promise()


def comparison(n_good: int, factor: float) -> Comparison:
    """Two training pictures, good test pictures and one defective one."""
    expected = np.linspace(10.0, 20.0, 2 + n_good + 1)
    nothing = Evaluator().result().metrics
    return Comparison(
        names=tuple(f"{number}.png" for number in range(len(expected))),
        n_training=2,
        good=np.array([True] * (2 + n_good) + [False]),
        expected=expected,
        got=expected * np.array([9.0] * 2 + [factor] * n_good + [1.0]),
        expected_peaks=expected,
        got_peaks=expected * 1.5,
        map_differences=np.zeros(len(expected)),
        metrics=(nothing, nothing),
    )


@pytest.mark.parametrize(
    ("apart", "difference", "problem"),
    [
        (3, 0.05, None),
        (4, 0.05, "maps of 4 of 103 pictures"),
        (1, 0.2, "more than that, up to 0.2"),
        (1, np.nan, "more than that, up to nan"),
    ],
)
def test_a_tie_in_a_search_is_no_fault_of_an_exact_graph(
    apart: int, difference: float, problem: str | None
) -> None:
    compared = comparison(100, 1.0)
    compared.got[:] = compared.expected
    compared.map_differences[:apart] = difference
    parity = Parity.of(compared, "fp32", (15.0, 15.0))
    assert parity.n_apart == apart
    if problem is None:
        parity.check(exact=True)
        return
    with pytest.raises(ProofError, match=problem):
        parity.check(exact=True)


def test_a_common_shift_of_unseen_good_pictures_moves_the_limit(exported: Exported) -> None:
    info = exported.info
    assert with_own_limits(info, comparison(9, 1.1)) == info
    moved = with_own_limits(info, comparison(10, 1.1))
    assert moved.threshold == pytest.approx(1.1 * info.threshold)
    assert moved.map_threshold == pytest.approx(1.5 * info.map_threshold)
    assert moved.calibration is not None and info.calibration is not None
    assert moved.calibration.limit() == pytest.approx(moved.threshold)
    assert moved.calibration.p_value(1.1 * 50) == pytest.approx(info.calibration.p_value(50))


def test_copies_of_fitted_pictures_in_the_test_split_move_nothing(exported: Exported) -> None:
    """SPADE scores them with next to nothing, all of which may be rounding."""
    info = exported.info
    compared = comparison(10, 1.1)
    copies = np.array([False] * 2 + [True] * 10 + [False])
    nearly_nothing = np.where(copies, 1e-3 * info.threshold, compared.expected)
    rounded = replace(
        compared,
        expected=nearly_nothing,
        got=50 * nearly_nothing,
        expected_peaks=nearly_nothing,
        got_peaks=50 * nearly_nothing,
    )
    assert with_own_limits(info, rounded) == info


def test_both_figures_are_of_the_test_split_alone(run: Path, exported: Exported) -> None:
    trained = json.loads((run / "metrics.json").read_text())
    parity = exported.parity
    assert (parity.n_pictures, parity.n_training) == (12 + 24, 24)
    assert parity.image_auroc is not None and parity.pixel_auroc is not None
    assert parity.image_auroc[0] == trained["image_auroc"]
    assert parity.pixel_auroc[0] == pytest.approx(trained["pixel_auroc"], abs=1e-6)


def test_a_limit_of_the_users_own(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.onnx"
    arguments = ["export", str(run), "--output", str(output), "--threshold", "7.5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    info = Scorer(output, device="cpu").info
    assert info.threshold == 7.5
    assert info.threshold_rule.startswith("set at the export")
    assert info.calibration is not None
    assert info.false_alarm_rate == info.calibration.rate
    for value in ("nan", "0", "-1", "inf"):
        refused = CliRunner().invoke(main, [*arguments[:-1], value])
        assert refused.exit_code == 1 and "threshold" in refused.stderr
    with pytest.raises(ConfigError, match="finite"):
        ExportOptions(threshold=float("nan"))


@pytest.mark.slow
@pytest.mark.parametrize("method", [PatchCore, Fusion])
def test_other_detectors_hardly_move(
    method: type[Detector], data_root: Path, tmp_path: Path
) -> None:
    detector = (PatchCore if method is PatchCore else Fusion)(
        weights="none", input_size=SIZE, coreset=0.2
    )
    folder = train(detector, load_category("plate", data_root), tmp_path).folder
    exported = export(folder)
    trained = json.loads((folder / "metrics.json").read_text())["threshold"]
    assert exported.parity.precision == "int8"
    assert exported.info.threshold == pytest.approx(trained, rel=0.01)
