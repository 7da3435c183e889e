"""C++ kernels for the CPU, which fuse stages that torch's operators would pass through memory.

Callers run torch's operators where `runs` returns False; tests hold both to the same results. The
library is compiled when it is first needed (`native.build`). NEUROCONV_NATIVE=0 disables it.
"""

from neuroconv.kernels.native.call import (
    DTYPES,
    bits,
    native_kernels,
    padded,
    prefers_reference,
    runs,
    state,
)
from neuroconv.kernels.native.image import ImageLayer, ImageSizes
from neuroconv.kernels.native.soma import Soma
from neuroconv.kernels.native.trees import (
    TapIndex,
    TreeInputs,
    Trees,
    cells_at_once,
    multiplied_sites,
    pad_samples,
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
    "pad_samples",
    "padded",
    "prefers_reference",
    "runs",
    "state",
]
