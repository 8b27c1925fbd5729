"""A few mutated inputs of each kind in the normal tests; `make fuzz` runs 10,000."""

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import fuzz, names


@pytest.mark.parametrize("name", names())
def test_mutated_inputs_are_refused_with_a_sentence(name: str) -> None:
    findings = fuzz(name, count=100)
    assert not findings, "\n".join(f"{finding.index}: {finding.what}" for finding in findings)


def test_the_harness_finds_what_it_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS", 4.0)
    # This seed gives the numbers from 0 to 5 in this order.
    found = {each.index: each.what for each in fuzz("_broken", count=6, seed=7504)}
    assert sorted(found) == [1, 2, 3, 4]
    assert "ZeroDivisionError" in found[1]
    assert "took longer than 4 s" in found[2]
    assert "MemoryError" in found[3]
    assert "died with exit code" in found[4]
