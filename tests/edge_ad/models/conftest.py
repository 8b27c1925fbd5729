"""What all tests of the detectors share."""

from collections.abc import Iterator

import pytest

from edge_ad.models.machine import full_precision


@pytest.fixture(autouse=True)
def no_tf32() -> Iterator[None]:
    """Compute what a test asks of a detector's layers as `fit` and `predict` do, on a GPU too."""
    with full_precision():
        yield
