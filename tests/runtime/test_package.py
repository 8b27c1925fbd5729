"""The package as a whole: its public names, and what importing it costs."""

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import pytest

import edge_ad_runtime


@pytest.mark.parametrize("name", edge_ad_runtime.__all__)
def test_public_names_are_there(name: str) -> None:
    assert not isinstance(getattr(edge_ad_runtime, name), ModuleType)


def test_public_names_are_all_of_them() -> None:
    lazy = {name for names in edge_ad_runtime._MODULES.values() for name in names}
    errors = {
        name
        for name, value in vars(edge_ad_runtime).items()
        if isinstance(value, type) and issubclass(value, edge_ad_runtime.EdgeAdError)
    }
    assert lazy | errors == set(edge_ad_runtime.__all__)
    assert sorted(edge_ad_runtime.__all__) == edge_ad_runtime.__all__


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(edge_ad_runtime, "nothing")  # noqa: B009


@pytest.mark.parametrize(
    "statement", ["import edge_ad_runtime", "from edge_ad_runtime import Scorer"]
)
def test_import_is_light(statement: str) -> None:
    """What makes an import slow is what it pulls in; a clock would only measure the machine."""
    code = (
        f"import sys; {statement}; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'edge_ad', 'sklearn'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_jetson_image_installs_every_dependency() -> None:
    """It installs the wheel without its dependencies, whose list stands there a second time."""
    image = (Path(__file__).parents[2] / "Dockerfile.jetson").read_text()
    for requirement in requires("edge-ad") or []:
        name, _, marker = requirement.partition(";")
        if "extra" not in marker:
            assert f'"{name.strip()}' in image, requirement
