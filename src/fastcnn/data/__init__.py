"""Pictures and labels as numpy arrays, from the places a DATA string can name.

Nothing here needs torch, and nothing here opens a pickle.
"""

from fastcnn.data.dataset import DataError, Dataset, LazyImages
from fastcnn.data.source import DATA_KINDS, Split, load_data
from fastcnn.data.transforms import PRESETS, Preprocess, centre_crop, resize, resize_short_side

__all__ = [
    "DATA_KINDS",
    "PRESETS",
    "DataError",
    "Dataset",
    "LazyImages",
    "Preprocess",
    "Split",
    "centre_crop",
    "load_data",
    "resize",
    "resize_short_side",
]
