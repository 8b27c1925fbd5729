"""Pictures on disk: samples, datasets, categories."""

from edge_ad.data.categories import Category, load_category
from edge_ad.data.dataset import Dataset, Sample
from edge_ad.data.input_size import choose_input_size

__all__ = ["Category", "Dataset", "Sample", "choose_input_size", "load_category"]
