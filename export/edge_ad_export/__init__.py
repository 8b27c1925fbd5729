"""From a run to one ONNX file that scores like the detector.

    from edge_ad_export import ExportOptions, export

    exported = export(Path("results/cable/padim"), options=ExportOptions(target="portable"))
    print(exported.path, exported.parity)

The names below are loaded on first use, so that a device without PyTorch can import the package.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad_export.exporter import Exported, ExportOptions, export, export_detector

__all__ = ["ExportOptions", "Exported", "export", "export_detector"]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module("edge_ad_export.exporter"), name)
    return value


def __dir__() -> list[str]:
    """List the public names, so that they are completed before they are loaded."""
    return sorted({*globals(), *__all__})
