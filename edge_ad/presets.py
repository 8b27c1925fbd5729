"""Settings under a name: what the papers and the code base that we descend from used.

Plain data without imports, so that the command line can offer it before PyTorch is loaded.
"""

from typing import Any

PRESETS = ("default", "paper")

PAPER_BACKBONE = "wide_resnet50_2"
PAPER_RESIZE = 256
PAPER_CROP = 224

PAPER: dict[str, dict[str, Any]] = {
    "spade": {
        "k": 50,
        "gallery_rule": "position",
        "dims": "all",
        "patch_size": 1,
        "grid_stride": 4,
    },
    "padim": {"dims": 550, "epsilon": 0.01, "patch_size": 1, "grid_stride": 4},
    "patchcore": {"coreset": 0.1, "neighbours": 3, "grid_stride": 8},
}
"""Method -> constructor arguments on top of the backbone and the centre crop."""
