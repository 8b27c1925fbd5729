"""Options as data: one field is constructor argument, command-line option, preset and JSON key."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad.cli.train import train
from edge_ad.config import (
    CONFIGS,
    METHODS,
    PRESETS,
    DetectorConfig,
    PaDiMConfig,
    PatchCoreConfig,
    option_of,
)
from edge_ad.models import DETECTORS, PaDiM, create
from edge_ad_runtime.errors import ConfigError, NotFittedError


@pytest.mark.parametrize("method", METHODS)
def test_constructor_and_command_line_have_exactly_the_fields(method: str) -> None:
    names = {item.name for item in fields(CONFIGS[method])}
    assert set(inspect.signature(DETECTORS[method]).parameters) == names
    command = train.commands[method]
    offered = {param.name for param in command.params}
    own = {"names", "data_root", "results", "skip_bad", "as_json", "preset", "center_crop"}
    assert names <= offered
    assert own <= offered


@pytest.mark.parametrize("method", METHODS)
def test_help_says_what_each_option_means(method: str) -> None:
    text = " ".join(CliRunner().invoke(main, ["train", method, "--help"]).output.split())
    for item in fields(CONFIGS[method]):
        first = option_of(CONFIGS[method], item.name).help.split()[:4]
        assert " ".join(first) in text
        assert item.name in (DETECTORS[method].__init__.__doc__ or "")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_values_that_the_fields_accept(method: str, preset: str) -> None:
    config = CONFIGS[method]
    chosen = config(**config.preset(preset))
    backbones = {"paper": "wide_resnet50_2", "accurate": "efficientnet_lite2"}
    assert chosen.backbone == backbones.get(preset, "efficientnet_lite0")


@pytest.mark.parametrize("method", METHODS)
def test_json_rebuilds_the_configuration(method: str) -> None:
    config = create(CONFIGS[method](weights="none", input_size=(64, 96), sigma=2)).config
    document = json.loads(json.dumps(config.to_json()))
    assert "weights" not in document and "device" not in document
    assert CONFIGS[method].from_json(document, weights="none") == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", 3),
        ("backbone", ""),
        ("layers", "stage3"),
        ("layers", []),
        ("layers", [3]),
        ("input_size", [64]),
        ("input_size", [64, 65]),
        ("input_size", [64.0, 64]),
        ("input_size", [64, 10**9]),
        ("resize", 0),
        ("resize", True),
        ("seed", -1),
        ("seed", 2**70),
        ("sigma", float("nan")),
        ("sigma", -1),
        ("sigma", 1e300),
        ("sigma", 10**400),
        ("sigma", "4"),
        ("grid_stride", 7),
        ("grid_stride", None),
        ("dims", 0),
        ("dims", "many"),
        ("dims", True),
        ("epsilon", 0),
        ("epsilon", float("inf")),
        ("patch_size", 2),
        ("device", "tpu"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"as {name}, got"):
        PaDiMConfig(**options)


@pytest.mark.parametrize("document", [[], None, "x", {"k": 3}, {"weights": "none"}, {"sigma": []}])
def test_json_that_is_no_configuration_is_refused(document: object) -> None:
    with pytest.raises(ConfigError):
        PaDiMConfig.from_json(document)


def test_a_resize_below_the_crop_is_refused() -> None:
    with pytest.raises(ConfigError, match="--center-crop"):
        PatchCoreConfig(input_size=(224, 224), resize=200)


def test_a_detector_whose_weights_never_came_does_not_fit() -> None:
    detector = PaDiM(weights=None, input_size=(64, 64))
    with pytest.raises(NotFittedError, match="weights"):
        detector.fit([])


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["train", *arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def test_an_internal_word_is_no_way_to_train_on_random_weights(
    data_root: Path, tmp_path: Path
) -> None:
    where = ["--class", "plate", "--data-root", str(data_root), "--results", str(tmp_path)]
    code, message = invoke("padim", *where, "--weights", "saved")
    assert code == 1 and "weights file saved" in message
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dims", "many"),
        ("--sigma", "nan"),
        ("--grid-stride", "9"),
        ("--input-size", "1x2x3"),
        ("--input-size", "100"),
        ("--seed", "x"),
        ("--epsilon", "-1"),
        ("--layers", ","),
    ],
)
def test_wrong_usage_names_the_option_and_what_is_expected(option: str, value: str) -> None:
    code, message = invoke("padim", "--class", "plate", option, value)
    assert code == 2 and option in message and "expected" in message


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch, data_root: Path) -> Callable[..., DetectorConfig]:
    """From options of `train padim` to the configuration that they mean; nothing is trained."""
    seen: list[DetectorConfig] = []

    def stop(config: DetectorConfig) -> None:
        seen.append(config)
        raise ConfigError("far enough")

    monkeypatch.setattr("edge_ad.models.create", stop)

    def run(*arguments: str) -> DetectorConfig:
        invoke("padim", "--class", "plate", "--data-root", str(data_root), *arguments)
        return seen.pop()

    return run


def test_what_is_given_wins_over_the_preset(config_of: Callable[..., PaDiMConfig]) -> None:
    paper = config_of("--preset", "paper", "--dims", "20")
    assert (paper.dims, paper.epsilon) == (20, 0.01)
    assert (paper.input_size, paper.resize) == ((224, 224), 256)
    whole = config_of("--preset", "paper", "--input-size", "96x64")
    assert (whole.input_size, whole.resize) == ((96, 64), None)
    cropped = config_of("--preset", "paper", "--center-crop", "96")
    assert (cropped.input_size, cropped.resize) == ((96, 96), 256)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resize", "80"],
        ["--center-crop", "64"],
        ["--resize", "80", "--input-size", "64"],
        ["--resize", "80", "--center-crop", "64", "--input-size", "64"],
    ],
)
def test_half_a_crop_is_wrong_usage(data_root: Path, arguments: list[str]) -> None:
    code, message = invoke("padim", "--class", "plate", "--data-root", str(data_root), *arguments)
    assert code == 2 and "center-crop" in message


def test_a_typing_mistake_in_the_class_is_told_before_pytorch_loads(tmp_path: Path) -> None:
    code = (
        "import sys; from edge_ad.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    where = ["--class", "botle", "--data-root", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-c", code, "train", "padim", *where], capture_output=True, text=True
    )
    assert result.stdout.split() == ["1", "False"], result.stderr
    assert "botle" in result.stderr
