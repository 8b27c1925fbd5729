"""Solar cells by electroluminescence, from the package `elpv-dataset`.

300 x 300 grey pictures, each with the probability that the cell is defective, no masks
(Deitsch et al. 2019, Solar Energy 185, doi:10.1016/j.solener.2019.02.067).
"""

import importlib.util
from pathlib import Path

from edge_ad.data.dataset import Dataset, Sample
from edge_ad_runtime.errors import DataError, MissingExtraError

ELPV_TYPES = {"elpv-mono": "mono", "elpv-poly": "poly"}
"""Category name -> cell type in the package's labels.csv."""

_DEFECT = "defect"
_TEST_FRACTION, _SEED = 0.2, 0
_PROBABILITY_GOOD, _PROBABILITY_DEFECT = 0.0, 1.0


def load_elpv(name: str, *, skip_bad: bool = False) -> tuple[Dataset, Dataset]:
    """Return (train, test): 80 % of the surely good cells, and the rest with the surely bad ones.

    Cells whose experts were unsure (probability 1/3 or 2/3) are left out.

    Raises:
        MissingExtraError: the package is not installed.
        DataError: its list of labels is missing or not what is expected.
    """
    folder = _package_data(name)
    good: list[Sample] = []
    defective: list[Sample] = []
    for picture, probability, cell_type in _labels(folder / "labels.csv"):
        if cell_type != ELPV_TYPES[name]:
            continue
        if probability == _PROBABILITY_GOOD:
            good.append(Sample(path=folder / picture))
        elif probability == _PROBABILITY_DEFECT:
            defective.append(Sample(path=folder / picture, label=_DEFECT))
    train, test_good = Dataset(good, name=name, skip_bad=skip_bad).split(_TEST_FRACTION, _SEED)
    return train, Dataset([*test_good, *defective], name=name, skip_bad=skip_bad)


def _package_data(name: str) -> Path:
    """Find the package without importing it: its loader would read every picture at once."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"the class {name} comes with the package elpv-dataset, which is not installed: "
            "pip install 'edge-ad[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _labels(path: Path) -> list[tuple[str, float, str]]:
    """Read the rows (picture, probability of a defect, cell type), separated by spaces."""
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        return [(picture, float(probability), cell) for picture, probability, cell in rows]
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected rows of picture, probability and type in {path} ({error}): "
            "install elpv-dataset again"
        ) from error
