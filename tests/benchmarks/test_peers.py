"""The comparison with peers, with a fake peer in place of their 14 GB."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.bench import Column, Row, Table
from benchmarks.peers.measurements import Measurements
from benchmarks.peers.page import draw_chart, markdown, not_leading, pareto_front
from benchmarks.peers.tools import ROOT, PeerError, Tool, Turns, ask

FAKE = """
from benchmarks.peers.adapters.protocol import Fitted, Verdict, cost, peak_mib, run, serve

def fit(request):
    print("a banner, as tools print them")
    with cost() as spent:
        sum(range(1000))
    found = Fitted(fit=spent, peak_mib=peak_mib(), picks=(7, 2.0))
    found.training["test/good/0.png"] = Verdict(request["share"], None)
    return found

def fail(request):
    raise ValueError("expected weights, got none")

run({"fit": fit, "fail": fail, "frame": lambda request: serve(lambda: None)})
"""


@pytest.fixture
def fake(tmp_path: Path) -> Tool:
    (tmp_path / "fake_adapter.py").write_text(FAKE)
    return Tool("fake", "fake_adapter", python_path=(tmp_path, ROOT), own_environment=False)


def test_command_carries_the_request_as_json(fake: Tool) -> None:
    command = fake.command({"do": "fit", "dims": None})
    assert command[1:3] == ["-m", "fake_adapter"]
    assert json.loads(command[3]) == {"do": "fit", "dims": None}


def test_peers_run_in_environments_of_their_own() -> None:
    peer = Tool("a peer", "its.adapter")
    assert peer.python == ROOT / ".venv-peers" / "a-peer" / "bin" / "python"
    assert peer.environment()["PYTHONPATH"] == str(ROOT)


def test_answer_is_found_among_what_the_tool_prints(fake: Tool, tmp_path: Path) -> None:
    found = ask(fake, {"do": "fit", "folder": str(tmp_path), "share": 0.5}, timeout_s=60)
    assert found["picks"] == [7, 2.0]
    assert found["training"] == {"test/good/0.png": {"score": 0.5, "anomalous": None}}
    assert found["fit"]["wall_s"] > 0
    assert 5 < found["peak_mib"] < 200  # its own memory, and not that of the tests


def test_failure_is_told_in_the_words_of_the_tool(fake: Tool, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="ValueError: expected weights, got none"):
        ask(fake, {"do": "fail", "folder": str(tmp_path)}, timeout_s=60)


def test_tool_that_takes_turns(fake: Tool, tmp_path: Path) -> None:
    with Turns(fake, {"do": "frame", "folder": str(tmp_path)}) as process:
        assert process.ready["ready"]
        assert {"wall_ms", "cpu_ms"} == set(process.turn()) == set(process.turn())


def test_tool_that_ends_instead_of_answering(fake: Tool, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="exit code 1"):
        Turns(fake, {"do": "fail", "folder": str(tmp_path)})


def test_measurements_survive_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "measurements.jsonl"
    figures: Iterator[dict[str, int]] = iter([{"ms": 1}, {"ms": 2}, {"ms": 3}])

    def fails() -> dict[str, int]:
        raise PeerError("no weights")

    first = Measurements(path)
    assert first.get({"table": "frame"}, lambda: next(figures)) == {"ms": 1}
    assert first.get({"table": "fit"}, fails) == {"error": "no weights"}
    later = Measurements(path)
    assert later.get({"table": "frame"}, lambda: next(figures)) == {"ms": 1}
    assert later.get({"table": "fit"}, lambda: next(figures)) == {"error": "no weights"}
    again = Measurements(path, forget=lambda key: key["table"] == "frame")
    assert again.get({"table": "frame"}, lambda: next(figures)) == {"ms": 2}
    assert Measurements(path).get({"table": "fit"}, lambda: next(figures)) == {
        "error": "no weights"
    }


@pytest.fixture
def table() -> Table:
    columns = [Column("AUROC", 1), Column("wall, ms", -1), Column("pictures")]
    rows = [
        Row("bare backbone", [None, 1.0, None]),
        Row("edge-ad PaDiM", [99.0, 12.0, 5.0]),
        Row("anomalib PaDiM", [98.0, 9.0, 5.0]),
        Row("anomavision PatchCore", [None, None, None], "RuntimeError: singular matrix"),
    ]
    return Table("Speed", "What was measured.", columns, rows)


def test_page_marks_the_best_and_keeps_the_errors(table: Table) -> None:
    page = markdown(table)
    assert "| edge-ad PaDiM | **99.0** | 12.0 | 5.0 |" in page
    assert "| anomalib PaDiM | 98.0 | **9.0** | 5.0 |" in page
    assert "| anomavision PatchCore [1] | - | - | - |" in page
    assert "- [1] RuntimeError: singular matrix" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {5}


def test_page_says_where_edge_ad_does_not_lead(table: Table) -> None:
    (said,) = not_leading(table)
    assert said.startswith("wall, ms: anomalib PaDiM 9.0, edge-ad's best 12.0 (")
    table.rows[2].figures = [98.0, 11.99, 5.0]  # equal in print
    assert not_leading(table) == []
    table.rows[2].figures = [98.0, 13.0, 5.0]
    assert not_leading(table) == []
    assert "edge-ad has the best figure in every column." in markdown(table)


def test_chart_shows_every_point_and_the_front(tmp_path: Path) -> None:
    points = {
        "edge-ad PaDiM": (10.0, 97.0),
        "edge-ad fusion": (13.0, 99.0),
        "anomalib PaDiM": (34.0, 96.0),
    }
    assert pareto_front(points) == ["edge-ad PaDiM", "edge-ad fusion"]
    pytest.importorskip("matplotlib")
    draw_chart(points, tmp_path / "chart.svg", classes=3)
    drawn = (tmp_path / "chart.svg").read_text()
    assert re.search("<svg", drawn)
    assert all(name in drawn for name in points)
