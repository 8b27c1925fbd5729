"""Every Python snippet of the READMEs and the documentation runs as it is printed."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edge_ad_runtime

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden"
PAGES = (
    "README.md",
    "runtime/README.md",
    *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
)


def snippets() -> Iterator[Any]:
    for page in sorted(PAGES):
        text = (ROOT / page).read_text()
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            yield pytest.param(match[1], id=f"{page}:{line}")


@pytest.fixture
def workplace(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the snippets speak of: pictures of cables, a part, exported files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/cable").symlink_to(data_root / "plate")
    shutil.copy(GOLDEN / "good.png", tmp_path / "part.png")
    camera = 'model = "cable-padim.onnx"\n[[camera]]\nsource = "part.png"\n'
    (tmp_path / "line1.toml").write_text(camera)
    lines = '{"frame": 0, "camera": "left", "score": 1.5}\n{"event": "alarm on", "frame": 0}\n'
    (tmp_path / "verdicts.jsonl").write_text(lines)
    for name in ("cable", "bottle"):
        shutil.copy(GOLDEN / "padim/chip-padim.onnx", tmp_path / f"{name}-padim.onnx")
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # dask's own, which differ from version to version
@pytest.mark.parametrize("code", list(snippets()))
def test_snippet_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real_source = edge_ad_runtime.open_source

    def a_file_as_camera(spec: str) -> object:
        return real_source("part.png" if spec == "0" else spec)

    monkeypatch.setattr(edge_ad_runtime, "open_source", a_file_as_camera)
    if "distributed" in code:
        distributed = pytest.importorskip("distributed")
        local = distributed.Client(processes=False, n_workers=1, dashboard_address=None)
        monkeypatch.setattr(distributed, "Client", lambda address: local)
        with local:
            exec(compile(code, "snippet", "exec"), {})
        assert (workplace / "results/cable/padim/metrics.json").is_file()
        return
    exec(compile(code, "snippet", "exec"), {})
    if "verdicts.csv" in code:
        assert (workplace / "verdicts.csv").read_text().splitlines()[1:] == [",left,0,1.5,,,"]


def test_there_are_snippets() -> None:
    assert len(list(snippets())) >= 5
