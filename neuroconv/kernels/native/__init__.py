"""Kernels of our own for the CPU, in C++: what torch's operators would pass through memory often.

Callers ask `runs` and run torch's operators where the answer is no; tests hold both to the same
results. The library is compiled when it is first needed (`native.build`). The environment's
NEUROCONV_NATIVE=0 leaves it out.

"""

from neuroconv.kernels.native.call import DTYPES, bits, native_kernels, runs, state, whole
from neuroconv.kernels.native.image import ImageLayer, ImageSizes
from neuroconv.kernels.native.soma import Soma
from neuroconv.kernels.native.trees import (
    TapIndex,
    TreeInputs,
    Trees,
    cells_at_once,
    multiplied_sites,
    whole_vectors,
)

__all__ = [
    "DTYPES",
    "ImageLayer",
    "ImageSizes",
    "Soma",
    "TapIndex",
    "TreeInputs",
    "Trees",
    "bits",
    "cells_at_once",
    "multiplied_sites",
    "native_kernels",
    "runs",
    "state",
    "whole",
    "whole_vectors",
]
