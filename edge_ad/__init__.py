"""Visual anomaly detection: from pictures of good parts to one ONNX file.

    from edge_ad import Fusion, load_category

    category = load_category("cable", "datasets")
    detector = Fusion(backbone="efficientnet_lite0").fit(category.train)
    print(detector.evaluate(category.test).metrics)
    detector.save("cable-fusion")

The names below are loaded on first use, so that a device without PyTorch can import the package.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad.data import Dataset, Sample, load_category
    from edge_ad.models import SPADE, Fusion, PaDiM, PatchCore, load

__version__ = "0.1.0"

__all__ = [
    "SPADE",
    "Dataset",
    "Fusion",
    "PaDiM",
    "PatchCore",
    "Sample",
    "__version__",
    "load",
    "load_category",
]

_MODULES = {
    "edge_ad.data": ("Dataset", "Sample", "load_category"),
    "edge_ad.models": ("SPADE", "Fusion", "PaDiM", "PatchCore", "load"),
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, on first use."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, so that they are completed before they are loaded."""
    return sorted({*globals(), *__all__})
