"""What the papers report for the 15 MVTec classes, in percent, to stand beside our figures.

- SPADE: Cohen & Hoshen 2020, arXiv 2005.02357, pixel ROC-AUC per class; image ROC-AUC as a mean
  only.
- PaDiM: Defard et al. 2020, arXiv 2011.08785, PaDiM-WR50-Rd550, pixel ROC-AUC per class; image
  ROC-AUC as a mean only.
- PatchCore: Roth et al. 2021, arXiv 2106.08265, PatchCore-10%, image and pixel ROC-AUC per class.

The columns of SPADE circulate in a wrong order of classes (textures first, read as alphabetical);
here they stand as in the paper, whose rows average to 96.0.
"""

from edge_ad.data import MVTEC_CLASSES

_PATCHCORE_IMAGE = (
    *(100.0, 99.4, 97.8, 98.7, 97.9, 100.0, 100.0, 100.0),
    *(96.0, 97.0, 98.9, 99.7, 100.0, 99.0, 99.5),
)
_PATCHCORE_PIXEL = (
    *(98.6, 98.5, 98.9, 99.1, 98.7, 98.7, 99.3, 98.4),
    *(97.6, 99.4, 95.9, 98.7, 96.4, 95.1, 98.9),
)
_PADIM_PIXEL = (
    *(98.3, 96.7, 98.5, 99.1, 97.3, 98.2, 99.2, 97.2),
    *(95.7, 98.5, 94.1, 98.8, 97.5, 94.9, 98.5),
)
_SPADE_PIXEL = (
    *(98.4, 97.2, 99.0, 97.5, 93.7, 99.1, 97.6, 98.1),
    *(96.5, 98.9, 87.4, 97.9, 94.1, 88.5, 96.5),
)

IMAGE_AUROC: dict[str, dict[str, float]] = {
    "spade": {},
    "padim": {},
    "patchcore": dict(zip(MVTEC_CLASSES, _PATCHCORE_IMAGE, strict=True)),
}
"""Method -> class -> percent; a class that the paper does not report is left out."""

PIXEL_AUROC: dict[str, dict[str, float]] = {
    "spade": dict(zip(MVTEC_CLASSES, _SPADE_PIXEL, strict=True)),
    "padim": dict(zip(MVTEC_CLASSES, _PADIM_PIXEL, strict=True)),
    "patchcore": dict(zip(MVTEC_CLASSES, _PATCHCORE_PIXEL, strict=True)),
}
"""As `IMAGE_AUROC`."""

IMAGE_AUROC_MEAN = {"spade": 85.5, "padim": 95.3, "patchcore": 99.0}
"""Mean over the 15 classes, percent."""

PIXEL_AUROC_MEAN = {"spade": 96.0, "padim": 97.5, "patchcore": 98.1}
"""Mean over the 15 classes, percent."""
