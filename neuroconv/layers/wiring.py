"""Wiring: the axon that each synapse receives, and the signs of axons.

A wiring is a small object that draws: `axons(in_features, neurons, tree)` returns an integer tensor
(neurons, synapses) of axon indices, from a generator of its own, so that nothing else influences
it. Synapses fill the sheet dendrite by dendrite: synapse s sits on dendrite s // sites,
at site s % sites, and where there are fewer synapses than positions the last dendrites have fewer,
or none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroconv.core.arguments import ImageShape, Rule, Seed, Share, Size, checked
from neuroconv.layers.tree_shape import TreeShape

Axons = NDArray[np.int64]


class _Contacts:
    """The base of wirings that draw contacts: one per synapse, or with a claw one per dendrite."""

    claw: bool | None = None
    seed: Seed = 0

    @checked
    def axons(
        self, in_features: Size, neurons: Size, tree: TreeShape, rows: slice = slice(None)
    ) -> Tensor:
        """Returns (neurons, synapses) indices below `in_features`, of all neurons or of `rows`;
        ValueError for a misfit."""
        self._check(in_features, tree)
        if _on_meta():
            return torch.empty(len(range(neurons)[rows]), tree.filled, dtype=torch.int64)
        contacts = self._contacts(in_features, neurons, tree, rows)
        synapses = np.repeat(contacts, tree.sheet[0] if self.claw else 1, axis=1)
        axons = np.ascontiguousarray(synapses[:, : tree.filled])
        return torch.from_numpy(axons).to(torch.get_default_device())

    def _check(self, in_features: int, tree: TreeShape) -> None:
        """Raises ValueError for axons and a tree that the wiring does not fit."""

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        """Draws the axons of (neurons, contacts), at least as many as needed, and returns rows."""
        raise NotImplementedError


@checked
@dataclass(frozen=True)
class Random(_Contacts):
    """Random axons: a neuron receives each equally often, to within one synapse.

    Args:
        claw: all sites of a dendrite share one axon, as a granule cell's dendrite grips one mossy
            fibre; else each synapse draws an axon for itself. None: as the cell's preset has it,
            and without a preset False.
        seed: the wiring is a function of it.
    """

    claw: bool | None = None
    seed: Seed = 0

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        rng, choices = _generator(self.seed), np.arange(in_features)
        contacts = tree.sheet[1] if self.claw else tree.filled
        return _stack((_draw(rng, choices, contacts) for _ in range(neurons)), rows)


@checked
@dataclass(frozen=True)
class InOrder(_Contacts):
    """Axons laid over the tree in their order, as parallel fibres cross a Purkinje cell.

    Neighbouring positions receive neighbouring axons, and all neurons of the row the same ones, by
    a separate synapse at each position. Nothing is drawn.
    """

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        axons = np.arange(tree.filled, dtype=np.int64) * in_features // tree.filled
        return np.broadcast_to(axons, (neurons, tree.filled))[rows]


@checked
@dataclass(frozen=True)
class AllToAll:
    """Wiring of every synapse to all axons: the essay's matrix product. Nothing is drawn."""

    def axons(
        self, in_features: int, neurons: int, tree: TreeShape, rows: slice = slice(None)
    ) -> None:
        """Returns None: no synapse has a single axon."""


@checked
@dataclass(frozen=True)
class ParallelFibres(_Contacts):
    """Parallel fibres across a row of neurons: each reaches only the cells that it crosses.

    The neurons (Purkinje cells) stand in a row. Each axon (parallel fibre) has its middle at one of
    them, drawn at random, and crosses `neurons_per_fibre` neighbouring ones; beyond the row's ends
    there are none, so that a fibre near an end crosses fewer. A neuron draws its synapses from the
    fibres that cross it, one synapse with each; only if these are fewer than its synapses do they
    repeat, evenly. A fibre thus makes synapses * neurons / in_features synapses on average, and
    skips some of the cells that it crosses. So it is in the rat: a connection has one or two
    contacts (introduction), and one was expected in 54 % of the pairs (abstract of Isope & Barbour
    2002, doi:10.1523/JNEUROSCI.22-22-09668.2002).

    An axon's index is its position in the cross-section of the fibres: synapses are ordered by it,
    so that a fibre, which runs straight, meets every tree at about the same position. A neuron that
    no fibre crosses is a ValueError.

    Args:
        neurons_per_fibre: neurons that a whole fibre crosses, which may be more than the row has.
            None: each fibre crosses the whole row.
        seed: the wiring is a function of it.
    """

    neurons_per_fibre: Size | None = None
    seed: Seed = 0

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        span = self.neurons_per_fibre or 2 * neurons  # which reaches both ends from any middle
        rng = _generator(self.seed)
        first = rng.integers(0, neurons, in_features) - (span - 1) // 2
        order = np.argsort(first, kind="stable")
        # In this order the fibres that cross a neuron, those with first <= neuron < first + span,
        # lie side by side.
        row = np.arange(neurons)
        begin = np.searchsorted(first, row - span, side="right", sorter=order)
        end = np.searchsorted(first, row, side="right", sorter=order)
        uncrossed = np.flatnonzero(begin == end)
        if uncrossed.size:
            raise ValueError(
                f"neurons_per_fibre={self.neurons_per_fibre}: in_features={in_features} fibres "
                f"leave {uncrossed.size} of {neurons} neurons uncrossed, neuron {uncrossed[0]} the "
                "first; expected a fibre for each: let them cross more neurons, take more fibres, "
                "or try another seed"
            )
        crossing = (order[begin[n] : end[n]] for n in row)
        return _stack((np.sort(_draw(rng, fibres, tree.filled)) for fibres in crossing), rows)


@checked
@dataclass(frozen=True)
class ReceptiveField(_Contacts):
    """A patch of one channel of an image for every neuron, at a random position.

    Args:
        image_shape: (channels, height, width) of the image whose flattened pixels are the axons.
        patch: (height, width) of the patch. Default: the sheet's shape, so that dendrite d is
            column d of the patch and site p its row p.
        claw: each dendrite receives one pixel of the patch, no two the same where the patch has
            enough; needs no relation between patch and sheet. None: as in `Random`.
        seed: the wiring is a function of it.

    Raises:
        ValueError: at the draw, an image of other pixels than there are axons, a patch larger than
            the image, or one that differs from the sheet without claw.
    """

    image_shape: ImageShape
    patch: Annotated[tuple[Size, Size], Rule("for (height, width)")] | None = None
    claw: bool | None = None
    seed: Seed = 0

    def _patch(self, tree: TreeShape) -> tuple[int, int]:
        return tree.sheet if self.patch is None else self.patch

    def _check(self, in_features: int, tree: TreeShape) -> None:
        channels, height, width = self.image_shape
        if channels * height * width != in_features:
            raise ValueError(
                f"image_shape={self.image_shape} has {channels * height * width} pixels and "
                f"in_features is {in_features}; expected one axon for each pixel"
            )
        rows, cols = self._patch(tree)
        if rows > height or cols > width:
            raise ValueError(
                f"patch={(rows, cols)} does not fit into image_shape={self.image_shape}; make the "
                "patch smaller"
            )
        if not self.claw and (rows, cols) != tree.sheet:
            raise ValueError(
                f"patch {(rows, cols)} differs from the sheet {tree.sheet}; without claw a patch "
                "has one pixel for each site: leave patch out or set claw=True"
            )

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        (channels, height, width), (tall, wide) = self.image_shape, self._patch(tree)
        rng, pixels = _generator(self.seed), np.arange(tall * wide)
        limits = (channels, height - tall + 1, width - wide + 1)
        channel, top, left = (rng.integers(0, limit, (neurons, 1))[rows] for limit in limits)
        if self.claw:
            inside = _stack((_draw(rng, pixels, tree.sheet[1]) for _ in range(neurons)), rows)
        else:
            inside = pixels.reshape(tall, wide).T.reshape(1, -1)  # column by column
        return (channel * height + top + inside // wide) * width + left + inside % wide


@checked
@dataclass(frozen=True)
class DendriticFields(_Contacts):
    """A patch of one channel of an image for every dendrite, at a random position.

    The sites of a dendrite draw pixels of its patch, no two the same where the patch has enough.

    Args:
        image_shape: (channels, height, width) of the image whose flattened pixels are the axons.
        patch: (height, width) of the patches.
        seed: the wiring is a function of it.

    Raises:
        ValueError: at the draw, an image of other pixels than there are axons, or a patch larger
            than the image.
    """

    image_shape: ImageShape
    patch: Annotated[tuple[Size, Size], Rule("for (height, width)")]
    seed: Seed = 0

    def _of_dendrite(self) -> ReceptiveField:
        """Returns the field of a dendrite, as if it were a neuron whose claws are the sites."""
        return ReceptiveField(self.image_shape, self.patch, claw=True, seed=self.seed)

    def _check(self, in_features: int, tree: TreeShape) -> None:
        self._of_dendrite()._check(in_features, tree)

    def _contacts(self, in_features: int, neurons: int, tree: TreeShape, rows: slice) -> Axons:
        sites, dendrites = tree.sheet
        sizes = in_features, neurons * dendrites, TreeShape((1, sites)), slice(None)
        return self._of_dendrite()._contacts(*sizes).reshape(neurons, -1)[rows]


Wiring = Random | ParallelFibres | ReceptiveField | DendriticFields | InOrder | AllToAll


@checked
def dale_signs(in_features: Size, excitatory: Share, seed: Seed) -> Tensor:
    """Draws the signs of Dale's law: an axon excites all its targets, or inhibits them.

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
    if _on_meta():
        return torch.empty(in_features, dtype=torch.int8)
    signs = np.full(in_features, -1, dtype=np.int8)
    signs[_generator(seed, 1).permutation(in_features)[: round(excitatory * in_features)]] = 1
    return torch.from_numpy(signs).to(torch.get_default_device())


def _draw(rng: np.random.Generator, choices: Axons, count: int) -> Axons:
    """Draws `count` of the choices in random order, each as often as any other, to within one."""
    rounds = -(-count // len(choices))
    return np.concatenate([rng.permutation(choices) for _ in range(rounds)])[:count]


def _stack(drawn: Iterable[Axons], rows: slice) -> Axons:
    """Stacks the rows of what is drawn for one neuron after another; holds no other rows."""
    return np.stack([*islice(drawn, rows.start, rows.stop)])


def _generator(seed: int, *stream: int) -> np.random.Generator:
    """Returns a fresh generator; streams of one seed are independent."""
    return np.random.default_rng((seed, *stream))


def _on_meta() -> bool:
    return torch.get_default_device().type == "meta"
