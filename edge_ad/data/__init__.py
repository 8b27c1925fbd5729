"""Pictures on disk: samples, datasets, categories."""

from edge_ad.data.categories import (
    MVTEC_CLASSES,
    Category,
    good_pictures,
    labelled_pictures,
    list_categories,
    load_category,
)
from edge_ad.data.dataset import GOOD, Dataset, Sample, ScoredSample
from edge_ad.data.input_size import choose_input_size
from edge_ad.data.pictures import Pictures, as_dataset

__all__ = [
    "GOOD",
    "MVTEC_CLASSES",
    "Category",
    "Dataset",
    "Pictures",
    "Sample",
    "ScoredSample",
    "as_dataset",
    "choose_input_size",
    "good_pictures",
    "labelled_pictures",
    "list_categories",
    "load_category",
]
