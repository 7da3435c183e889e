"""Data sets, and the encoding of an image into frames."""

from neuroconv.data.augment import AUGMENTS
from neuroconv.data.datasets import DATASETS, DataSplits, load_data
from neuroconv.data.encoding import ENCODINGS, encode, saccade_path, saccade_step, sample_seeds
from neuroconv.data.errors import DataError
from neuroconv.data.frames import Frames

__all__ = [
    "AUGMENTS", "DATASETS", "ENCODINGS", "DataError", "DataSplits", "Frames", "encode", "load_data",
    "saccade_path", "saccade_step", "sample_seeds",
]  # fmt: skip
