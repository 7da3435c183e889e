"""Wiring: which axon each synapse listens to, and which axons excite.

A wiring is an integer tensor (neurons, synapses) of axon indices, drawn from a seed with a
generator of its own, so that it depends on nothing else. Synapses fill the sheet dendrite by
dendrite: synapse s sits on dendrite s // sites, at site s % sites, and where there are fewer
synapses than places the last dendrites have fewer, or none.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.core.checks import check_positive, check_room, pair


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
        neurons, synapses: sizes; `synapses` of one neuron. They fill the sheet dendrite by
            dendrite: 4 on a sheet of 4 x 4 all sit on the first dendrite.
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
    everyone = np.arange(in_features)
    axons = np.stack([_draw(rng, everyone, contacts) for _ in range(neurons)])
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


def parallel_fibre_wiring(
    in_features: int,
    neurons: int,
    synapses: int,
    *,
    crossed: int | None = None,
    seed: int,
) -> Tensor:
    """Crosses a row of neurons with parallel fibres: each reaches only the cells that it crosses.

    The neurons (Purkinje cells) stand in a row. Each axon (parallel fibre) has its middle at one of
    them, drawn at random, and crosses `crossed` neighbouring ones; beyond the row's ends there are
    none, so that a fibre near an end crosses fewer. A neuron draws its synapses from the fibres
    that cross it, one synapse with each; only if these are fewer than its synapses do they repeat,
    evenly. A fibre thus makes synapses * neurons / in_features synapses on average, and skips some
    of the cells that it crosses. So it is in the rat: a connection has one or two contacts
    (introduction), and one was expected in 54 % of the pairs (abstract of Isope & Barbour 2002,
    doi:10.1523/JNEUROSCI.22-22-09668.2002).

    An axon's index is its place in the cross-section of the fibres: synapses are ordered by it, so
    that a fibre, which runs straight, meets every tree at about the same place.

    Args:
        in_features: number of axons.
        neurons, synapses: sizes; `synapses` of one neuron.
        crossed: neurons that a whole fibre crosses, which may be more than the row has. None: each
            fibre crosses the whole row.
        seed: the wiring is a function of it.

    Returns:
        (neurons, synapses) indices below `in_features`, rising along the synapses.

    Raises:
        ValueError: a size that is not positive, or a neuron that no fibre crosses.
    """
    check_positive(in_features=in_features, neurons=neurons, synapses=synapses)
    if crossed is not None:
        check_positive(crossed=crossed)
    if _on_meta():
        return torch.empty(neurons, synapses, dtype=torch.int64)
    rng = _generator(seed)
    if crossed is None:
        crossed = 2 * neurons  # from any middle, this reaches both ends of the row
    first = rng.integers(0, neurons, in_features) - (crossed - 1) // 2
    order = np.argsort(first, kind="stable")
    # In this order the fibres that cross a neuron, those with first <= neuron < first + crossed,
    # lie side by side.
    row = np.arange(neurons)
    begin = np.searchsorted(first, row - crossed, side="right", sorter=order)
    end = np.searchsorted(first, row, side="right", sorter=order)
    bare = np.flatnonzero(begin == end)
    if bare.size:
        raise ValueError(
            f"crossed={crossed}: in_features={in_features} fibres leave {bare.size} of {neurons} "
            f"neurons uncrossed, neuron {bare[0]} the first; expected a fibre for each: let them "
            "cross more neurons, take more fibres, or try another seed"
        )
    axons = np.empty((neurons, synapses), dtype=np.int64)
    for neuron in row:
        drawn = _draw(rng, order[begin[neuron] : end[neuron]], synapses)
        axons[neuron] = np.sort(drawn)
    return _synapses(axons, synapses, 1)


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
        everyone = np.arange(pixels)
        inside = np.stack([_draw(rng, everyone, sheet_shape[1]) for _ in range(neurons)])
    else:
        columns_first = np.arange(pixels).reshape(rows, cols).T.ravel()
        inside = np.broadcast_to(columns_first, (neurons, pixels))
    row = corner[:, 1:2] + inside // cols
    col = corner[:, 2:3] + inside % cols
    axons = (corner[:, :1] * height + row) * width + col
    return _synapses(axons, synapses, sheet_shape[0] if claw else 1)


def dale_signs(in_features: int, excitatory: float, seed: int) -> Tensor:
    """Dale's law: an axon either excites or inhibits, whatever it meets.

    Args:
        in_features: number of axons F.
        excitatory: fraction of axons that excite. In the cortex 0.8 to 0.9: nine neurons excite
            for each that inhibits (Attwell & Laughlin 2001, p. 1137,
            doi:10.1097/00004647-200110000-00001), about 85 % do (Harris, Jolivet & Attwell 2012,
            p. 762, doi:10.1016/j.neuron.2012.08.019), or 80 % (Parisien, Anderson & Eliasmith
            2008, from two counts in cat and monkey, doi:10.1162/neco.2008.07-06-295).
        seed: which ones do is a function of it. A wiring of the same seed is independent of them.

    Returns:
        (F,) of int8: +1 for exactly round(excitatory * F) axons, else -1.

    Raises:
        ValueError: in_features that is not positive, or a fraction outside of 0 to 1.
    """
    check_positive(in_features=in_features)
    if type(excitatory) not in (int, float) or not 0 <= excitatory <= 1:
        raise ValueError(
            f"excitatory={excitatory!r}; expected a fraction of the axons, 0 to 1 (0.85 for 85 %)"
        )
    if _on_meta():
        return torch.empty(in_features, dtype=torch.int8)
    signs = np.full(in_features, -1, dtype=np.int8)
    signs[_generator(seed, 1).permutation(in_features)[: round(excitatory * in_features)]] = 1
    return torch.from_numpy(signs).to(torch.get_default_device())


def _draw(rng: np.random.Generator, choices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """So many of the choices in random order, each as often as any other, to within one."""
    rounds = -(-count // len(choices))
    return np.concatenate([rng.permutation(choices) for _ in range(rounds)])[:count]


def _synapses(axons: NDArray[np.int64], synapses: int, share: int) -> Tensor:
    """From contacts to synapses: each contact's axon serves `share` synapses in a row."""
    wired = np.repeat(axons, share, axis=1)[:, :synapses]
    return torch.from_numpy(np.ascontiguousarray(wired)).to(torch.get_default_device())


def _generator(seed: int, *stream: int) -> np.random.Generator:
    """A generator of its own; streams of one seed are independent."""
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed={seed}; expected an integer of at least 0")
    return np.random.default_rng((seed, *stream))


def _on_meta() -> bool:
    return torch.get_default_device().type == "meta"
