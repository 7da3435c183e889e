"""A sum over a data set, by which a resumed run knows that its data are the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from neuroconv.data.cache import DecodedFiles, FittedStills
from neuroconv.data.frames import Frames
from neuroconv.data.stills import ImageFiles, ImageTensors

_FILES = 16  # whose content is read


def fingerprint(data: Dataset[Any] | DataLoader[Any]) -> str:
    """Returns a SHA-256 sum of what can be known of a data set without reading its items.

    These are all bytes of images in memory and of a TensorDataset; of image folders the names, the
    labels and the content of 16 files; of other data sets their kind, length and `targets`, or what
    their method `fingerprint` returns.
    """
    digest = hashlib.sha256()
    _add(digest, data)
    return digest.hexdigest()


def _add(digest: Any, data: Any) -> None:
    if isinstance(data, Frames | Subset | DataLoader):
        if isinstance(data, Subset):
            _add_array(digest, data.indices)
        if isinstance(data, Frames) and data.permutation is not None:
            _add_array(digest, data.permutation)
        return _add(digest, data.dataset)
    if isinstance(data, FittedStills | DecodedFiles):  # by the free memory
        return _add(digest, data.stills)
    digest.update(f"{type(data).__name__} {len(data)} ".encode())
    if hasattr(data, "fingerprint"):
        digest.update(str(data.fingerprint()).encode())
    elif isinstance(data, TensorDataset):
        for tensor in data.tensors:
            _add_tensor(digest, tensor)
    else:
        if isinstance(data, ImageTensors):
            _add_tensor(digest, data.images)
        elif isinstance(data, ImageFiles):
            for path in map(Path, data.paths):
                digest.update(f"{path.parent.name}/{path.name} ".encode(errors="surrogateescape"))
            for number in np.linspace(0, len(data) - 1, _FILES).round().astype(int):
                digest.update(Path(data.paths[number]).read_bytes())
        if (targets := getattr(data, "targets", None)) is not None:
            _add_array(digest, targets)


def _add_array(digest: Any, values: Any) -> None:
    try:
        array = np.asarray(values)
    except ValueError:  # of several lengths
        array = np.empty(0, object)
    digest.update(f"{array.shape} {array.dtype} ".encode())
    if not array.dtype.hasobject:
        digest.update(array.tobytes())
        return
    for leaf in tree_leaves(list(values) if isinstance(values, Iterable) else None):
        if isinstance(leaf, Tensor):
            _add_tensor(digest, leaf)
        elif isinstance(leaf, np.ndarray):
            _add_array(digest, leaf)
        else:  # other objects may show where they lie in memory
            plain = isinstance(leaf, str | int | float | bytes | np.generic | None)
            digest.update((repr(leaf) if plain else type(leaf).__name__).encode() + b" ")


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
    flat = tensor.detach().cpu().contiguous().flatten()
    digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
