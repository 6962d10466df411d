"""Labelled samples: data sets by name or path, read from malformed files without harm."""

from fastnn.data.dataset import Dataset, Datasets
from fastnn.data.download import DownloadProgress
from fastnn.data.loading import BUILT_IN, load_dataset
from fastnn.data.mnist import fetch_mnist, is_cached
from fastnn.data.pictures import PICTURES, read_picture
from fastnn.data.samples import read_samples
from fastnn.data.synthetic import synthetic

__all__ = [
    "BUILT_IN",
    "PICTURES",
    "Dataset",
    "Datasets",
    "DownloadProgress",
    "fetch_mnist",
    "is_cached",
    "load_dataset",
    "read_picture",
    "read_samples",
    "synthetic",
]
