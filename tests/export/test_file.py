"""What an exported file carries besides the graph: a checksum, and nothing of the workstation."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from edge_ad.data import load_category
from edge_ad.models import PaDiM
from edge_ad.train import train
from edge_ad_export import ExportOptions, export
from edge_ad_runtime import Scorer
from edge_ad_runtime.errors import ModelFileError
from edge_ad_runtime.model.info import CHECKSUM_KEY


@pytest.fixture(scope="module")
def model(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    detector = PaDiM(weights="none", input_size=(32, 32), layers=["stage2"])
    run = train(detector, load_category("plate", data_root), tmp_path_factory.mktemp("r")).folder
    return export(run, options=ExportOptions(with_backbone=True)).path


def texts(message: Any) -> list[str]:
    """Every text in a protobuf message, at any depth; tensors' bytes are not text."""
    found: list[str] = []
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if hasattr(item, "ListFields"):
                found += texts(item)
            elif isinstance(item, str):
                found.append(item)
    return found


@pytest.mark.parametrize("suffix", ["", "-backbone"])
def test_no_text_in_the_file_is_a_path(model: Path, suffix: str) -> None:
    path = model.with_stem(model.stem + suffix)
    found = texts(onnx.load(path))
    assert len(found) > 100
    assert [text for text in found if "/" in text or "\\" in text] == []
    content = path.read_bytes()
    for trace in (Path.home(), Path.cwd(), Path(sys.prefix), Path(onnx.__file__).parents[1]):
        assert os.fspath(trace).encode() not in content
    assert b".py" not in content


def test_every_flipped_bit_is_noticed(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    places = random.Random(0).sample(range(len(content)), 200)
    # Also the checksum itself, and the places by which it is found.
    for needle in (CHECKSUM_KEY.encode(), b'"checksum": "sha256"', b"edge_ad.model"):
        start = content.index(needle)
        places += range(start - 4, start + len(needle) + 4)
    damaged = tmp_path / model.name
    for place in places:
        bit = 1 << (place % 8)
        changed = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        damaged.write_bytes(changed)
        with pytest.raises(ModelFileError, match=r"damaged|export the run again"):
            Scorer(damaged, device="cpu")


def test_the_checksum_is_the_one_that_the_document_describes(model: Path) -> None:
    import hashlib

    checksum = Scorer(model, device="cpu").info.checksum
    assert checksum is not None
    blank = model.read_bytes().replace(checksum.encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == checksum


def test_scoring_writes_nothing_into_a_fresh_home(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; import numpy; from edge_ad_runtime import Scorer; "
        "Scorer(sys.argv[1], device='cpu').score(numpy.zeros((32, 32, 3), numpy.uint8))"
    )
    for command in (
        [sys.executable, "-c", code, str(model)],
        [sys.executable, "-c", "from edge_ad.cli import main; main()", "info", str(model)],
    ):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        environment = kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert [path for path in home.rglob("*") if path.is_file()] == []


def test_the_file_holds_golden_frames_that_it_scores_as_promised(model: Path) -> None:
    scorer = Scorer(model, device="cpu")
    assert scorer.golden is not None and len(scorer.golden.frames) == 2
    ordinary, worst = scorer.golden.frames
    assert ordinary.score < scorer.threshold < worst.score
    scorer.golden.check(scorer)
    without = export(
        model.parent, model.with_name("without.onnx"), ExportOptions(golden_frames=False)
    )
    assert Scorer(without.path, device="cpu").golden is None
