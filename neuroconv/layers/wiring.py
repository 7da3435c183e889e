"""Wiring: which axon each synapse listens to.

A wiring is an integer tensor (neurons, synapses) of axon indices, drawn from a seed with a
generator of its own, so that it depends on nothing else. Synapses are ordered dendrite by dendrite:
synapse s sits on dendrite s // sites, at site s % sites.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.layers.checks import check_positive, check_room, pair


def sparse_wiring(
    in_features: int,
    neurons: int,
    synapses: int,
    sheet_shape: tuple[int, int],
    *,
    claw: bool,
    seed: int,
) -> Tensor:
    """Draws axons at random, each as often as any other in one neuron (to within one synapse).

    Args:
        in_features: number of axons to choose from.
        neurons, synapses: sizes; `synapses` of one neuron.
        sheet_shape: (sites, dendrites).
        claw: all sites of a dendrite share one axon, as a granule cell's dendrite grips one mossy
            fibre; else each synapse has an axon of its own.
        seed: the wiring is a function of it.

    Returns:
        (neurons, synapses) indices below `in_features`.
    """
    sites, dendrites = sheet_shape
    check_room(synapses, sheet_shape)
    contacts = dendrites if claw else synapses
    if _on_meta():
        return torch.empty(neurons, synapses, dtype=torch.int64)
    rng = _generator(seed)
    rounds = -(-contacts // in_features)
    axons = np.empty((neurons, contacts), dtype=np.int64)
    for neuron in range(neurons):
        order = np.concatenate([rng.permutation(in_features) for _ in range(rounds)])
        axons[neuron] = order[:contacts]
    return _synapses(axons, synapses, sites if claw else 1)


def parallel_wiring(in_features: int, neurons: int, synapses: int) -> Tensor:
    """Lays the axons over the tree in their order, as parallel fibres cross a Purkinje cell.

    Neighbouring places listen to neighbouring axons, and all neurons of the row to the same ones,
    each place by a synapse of its own. Nothing is drawn.

    Returns:
        (neurons, synapses) indices below `in_features`, rising along the synapses.
    """
    if _on_meta():
        return torch.empty(neurons, synapses, dtype=torch.int64)
    axons = np.arange(synapses, dtype=np.int64) * in_features // synapses
    return _synapses(np.broadcast_to(axons, (neurons, synapses)), synapses, 1)


def receptive_field_wiring(
    image_shape: tuple[int, int, int],
    neurons: int,
    synapses: int,
    sheet_shape: tuple[int, int],
    *,
    patch: tuple[int, int] | None,
    claw: bool,
    seed: int,
) -> Tensor:
    """Gives every neuron a patch of one channel of an image; patches lie at random places.

    Args:
        image_shape: (channels, height, width) of the image whose flattened pixels are the axons.
        neurons, synapses: sizes; `synapses` of one neuron.
        sheet_shape: (sites, dendrites).
        patch: (height, width) of the patch. Default: the sheet's own shape, so that dendrite d is
            column d of the patch and site p its row p.
        claw: each dendrite listens to one pixel of the patch, no two to the same where the patch
            has enough; needs no relation between patch and sheet.
        seed: the wiring is a function of it.

    Raises:
        ValueError: a patch larger than the image, or one that differs from the sheet without claw.
    """
    channels, height, width = image_shape
    rows, cols = sheet_shape if patch is None else pair("patch", patch)
    check_positive(patch=(rows, cols))
    check_room(synapses, sheet_shape)
    if rows > height or cols > width:
        raise ValueError(
            f"a receptive field of {rows} x {cols} pixels does not fit into an image of "
            f"{height} x {width}; make the patch smaller"
        )
    if not claw and (rows, cols) != tuple(sheet_shape):
        raise ValueError(
            f"patch {(rows, cols)} differs from the sheet {tuple(sheet_shape)}; without claw a "
            "patch has one pixel for each site: leave patch out or set claw=True"
        )
    if _on_meta():
        return torch.empty(neurons, synapses, dtype=torch.int64)
    rng = _generator(seed)
    corner = np.stack(
        [rng.integers(0, n, neurons) for n in (channels, height - rows + 1, width - cols + 1)], 1
    )
    pixels = rows * cols
    if claw:
        rounds = -(-sheet_shape[1] // pixels)
        inside = np.stack(
            [
                np.concatenate([rng.permutation(pixels) for _ in range(rounds)])[: sheet_shape[1]]
                for _ in range(neurons)
            ]
        )
    else:
        columns_first = np.arange(pixels).reshape(rows, cols).T.ravel()
        inside = np.broadcast_to(columns_first, (neurons, pixels))
    row = corner[:, 1:2] + inside // cols
    col = corner[:, 2:3] + inside % cols
    axons = (corner[:, :1] * height + row) * width + col
    return _synapses(axons, synapses, sheet_shape[0] if claw else 1)


def _synapses(axons: NDArray[np.int64], synapses: int, share: int) -> Tensor:
    """From contacts to synapses: each contact's axon serves `share` synapses in a row."""
    wired = np.repeat(axons, share, axis=1)[:, :synapses]
    return torch.from_numpy(np.ascontiguousarray(wired)).to(torch.get_default_device())


def _generator(seed: int) -> np.random.Generator:
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed={seed}; expected an integer of at least 0")
    return np.random.default_rng(seed)


def _on_meta() -> bool:
    return torch.get_default_device().type == "meta"
