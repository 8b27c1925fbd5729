"""The notebook in the documentation runs, and shows plots and progress bars."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/first-notebook.ipynb"

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own packages
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat: Any = pytest.importorskip("nbformat", reason="no nbformat: pip install nbclient")
    nbclient: Any = pytest.importorskip("nbclient", reason="no nbclient: pip install nbclient")
    pytest.importorskip("ipykernel", reason="no ipykernel: pip install 'edge-ad[notebook]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in code), "clear the outputs before committing"
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    shown = {index: outputs_of(cell) for index, cell in enumerate(code)}
    plots = [index for index, kinds in shown.items() if "image/png" in kinds]
    assert [code[index].source.partition("(")[0] for index in plots] == [
        "detector.plot",
        "result.plot",
    ]
    assert sum(kinds.count("image/png") for kinds in shown.values()) == 2
    (fitted,) = [index for index, cell in enumerate(code) if ".fit(" in cell.source]
    # A bar: a widget, or text where there are no widgets.
    bars = {"application/vnd.jupyter.widget-view+json", "stderr"}
    assert bars & set(shown[fitted])
    assert (tmp_path / "washer-padim.onnx").is_file()


def outputs_of(cell: Any) -> list[str]:
    """Return the media types, and the names of the streams, that a cell has put out."""
    found: list[str] = []
    for output in cell.outputs:
        found += list(output.get("data", {})) or [output.get("name", output.output_type)]
    return found
