"""A population of neurons: the extended linear-nonlinear-Poisson cascade as one module.

Shapes: B batch, F axons that come in, N neurons, T time steps, P sites, D dendrites.
"""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from neuroconv.layers.checks import NORMS, Norm, check_choice, check_positive, check_sizes
from neuroconv.layers.conv import Backend, Mode
from neuroconv.layers.cost import Cost
from neuroconv.layers.dendrite import DendriticConv, DendriticRate, DendriticSummation
from neuroconv.layers.poisson import DropoutMode, PoissonDropout
from neuroconv.layers.soma import SomaFilter
from neuroconv.layers.synapse import DenseSynapses, SparseSynapses
from neuroconv.layers.wiring import parallel_wiring, receptive_field_wiring, sparse_wiring
from neuroconv.neurons.physiology import (
    GRANULE_DETTMERS2015,
    PURKINJE_DETTMERS2015,
    Physiology,
)

Wiring = Literal["dense", "sparse", "parallel", "receptive_field"]
WIRINGS: tuple[str, ...] = get_args(Wiring)


class Population(nn.Module):
    """Neurons of one type, between axons and axons: fits into nn.Sequential as nn.Linear does.

    `Granule` and `Purkinje` are this class with a preset. None as an argument takes the preset's
    number.

    Args:
        in_features: axons F that the population can listen to.
        out_features: neurons N.
        sheet_shape: (sites P, dendrites D).
        filter_shape: (branches, dendrites, time_steps) of each neuron's dendritic filter.
        synapses: synapses of one neuron, at most P * D; the last places stay empty.
        claw: the sites of a dendrite share one axon. With "sparse" and "receptive_field" wiring.
        mode: how the filter meets the sheet: "same" (the essay's cost), "valid", "per_dendrite".
        wiring: "sparse" (each synapse listens to one axon, drawn from `seed`), "parallel" (to one
            axon, in the order of the axons along the tree, the same for all neurons), "dense" (to
            all axons), or "receptive_field" (to a patch of the image that `in_features` flattens).
        image_shape: (channels, height, width), for "receptive_field" alone.
        patch: (height, width) of a receptive field; default the sheet's shape.
        norm: where potentials are batch-normalised: "none", at the "dendrites" (each dendrite of
            each neuron over batch, steps and sites), at the "soma" (each neuron over batch and
            steps), or at "both".
        linear_dendrites: leave the dendritic rectifier out: the control, a neuron that is one dot
            product up to its soma.
        reduction: of a dendrite's rates over its sites: "mean", "sum" or "max".
        soma_time_steps: taps of the soma's filter, shared by the population.
        soma_per_neuron: one soma filter for each neuron instead.
        mean_wait: Poisson dropout's mean waiting periods; 0 turns it off.
        dropout_mode: "wait" or "independent".
        unit_taps: hold the dendritic taps in units of their initial standard deviation, which
            gives filters of any size the same pace of learning; see `DendriticConv`.
        backend: of the dendritic convolution.
        seed: of the wiring.

    Shape:
        activity (B, F, T), or (B, F) taken as constant over the filter's time steps
        -> rate (B, N, T), never negative

    Raises:
        ValueError: a size or choice out of range; at the call, activity of another shape.
    """

    physiology: ClassVar[Physiology]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sheet_shape: tuple[int, int] | None = None,
        filter_shape: tuple[int, int, int] | None = None,
        synapses: int | None = None,
        claw: bool | None = None,
        mode: Mode = "same",
        wiring: Wiring = "sparse",
        image_shape: tuple[int, int, int] | None = None,
        patch: tuple[int, int] | None = None,
        norm: Norm = "none",
        linear_dendrites: bool = False,
        reduction: Literal["mean", "sum", "max"] = "mean",
        soma_time_steps: int | None = None,
        soma_per_neuron: bool = False,
        mean_wait: float | None = None,
        dropout_mode: DropoutMode = "wait",
        unit_taps: bool = False,
        backend: Backend = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, out_features=out_features)
        check_choice("norm", norm, NORMS)
        preset = self.physiology
        if synapses is None and sheet_shape is None:
            synapses = preset.synapses
        rows, dendrites = check_sizes(
            "sheet_shape",
            preset.sheet_shape if sheet_shape is None else sheet_shape,
            ("sites", "dendrites"),
        )
        if filter_shape is None:
            filter_shape = preset.filter_shape
        check_sizes("filter_shape", filter_shape, ("branches", "dendrites", "time_steps"))
        self.in_features, self.out_features = in_features, out_features
        self.time_steps = filter_shape[-1]

        self.synapses = _synapses(
            in_features,
            out_features,
            (rows, dendrites),
            rows * dendrites if synapses is None else synapses,
            preset.claw if claw is None else claw,
            wiring,
            image_shape,
            patch,
            seed,
        )
        self.dendrites = DendriticConv(
            out_features,
            (rows, dendrites),
            filter_shape,
            mode,
            backend,
            bias=norm not in ("dendrites", "both"),
            unit_taps=unit_taps,
        )
        columns = self.dendrites.out_shape[1]
        self.dendritic_norm = (
            nn.BatchNorm2d(out_features * columns) if norm in ("dendrites", "both") else None
        )
        self.dendritic_rate = DendriticRate(reduction, linear_dendrites)
        self.summation = DendriticSummation(scale=1 / columns)
        self.soma = SomaFilter(
            preset.soma_time_steps if soma_time_steps is None else soma_time_steps,
            out_features if soma_per_neuron else None,
        )
        at_soma = norm in ("soma", "both")
        self.soma_norm = nn.BatchNorm1d(out_features) if at_soma else None
        self.bias = None if at_soma else nn.Parameter(torch.zeros(out_features))
        self.dropout = PoissonDropout(
            preset.mean_wait if mean_wait is None else mean_wait, dropout_mode
        )

    def forward(self, activity: Tensor) -> Tensor:
        if activity.dim() == 2:
            activity = activity.unsqueeze(2).expand(-1, -1, self.time_steps)
        sheet = self.synapses(activity)  # (B, N, T, P, D)
        potential = self.dendrites(sheet)  # (B, N, T, P', D')
        if self.dendritic_norm is not None:
            potential = self._normalise_dendrites(potential)
        rate = self.dendritic_rate(potential)  # (B, N, T, D')
        current = self.summation(rate)  # (B, N, T)
        potential = self.soma(current)
        if self.soma_norm is not None:
            potential = self.soma_norm(potential)
        if self.bias is not None:
            potential = potential + self.bias[:, None]
        return self.dropout(potential.relu())

    def _normalise_dendrites(self, potential: Tensor) -> Tensor:
        assert self.dendritic_norm is not None
        columns = potential.movedim(4, 2)  # (B, N, D', T, P')
        normal = self.dendritic_norm(columns.flatten(1, 2))
        return normal.unflatten(1, columns.shape[1:3]).movedim(2, 4)

    def closed_form(self, activity: torch.Size) -> tuple[Cost, ...]:
        """Args: activity (B, F, T) or (B, F). One row for each stage that multiplies and adds."""
        steps = self.time_steps if len(activity) == 2 else activity[2]
        batch, neurons = activity[0], self.out_features
        sheet = torch.Size((batch, neurons, steps, *self.dendrites.sheet_shape))
        return (
            *self.synapses.closed_form(torch.Size((batch, self.in_features, steps))),
            *self.dendrites.closed_form(sheet, self.synapses.synapses),
            *self.soma.closed_form(torch.Size((batch, neurons, steps))),
        )


def _synapses(
    in_features: int,
    neurons: int,
    sheet_shape: tuple[int, int],
    synapses: int,
    claw: bool,
    wiring: Wiring,
    image_shape: tuple[int, int, int] | None,
    patch: tuple[int, int] | None,
    seed: int,
) -> SparseSynapses | DenseSynapses:
    check_choice("wiring", wiring, WIRINGS)
    if (image_shape is not None) != (wiring == "receptive_field"):
        raise ValueError(
            f"image_shape={image_shape} with wiring={wiring!r}; expected image_shape="
            "(channels, height, width) with wiring='receptive_field', and without it otherwise"
        )
    if patch is not None and wiring != "receptive_field":
        raise ValueError(f"patch={patch} with wiring={wiring!r}; it is for 'receptive_field' alone")
    if wiring == "parallel":
        axons = parallel_wiring(in_features, neurons, synapses)
        return SparseSynapses(axons, in_features, sheet_shape)
    if wiring == "dense":
        return DenseSynapses(in_features, neurons, sheet_shape, synapses)
    if image_shape is None:
        axons = sparse_wiring(in_features, neurons, synapses, sheet_shape, claw=claw, seed=seed)
        return SparseSynapses(axons, in_features, sheet_shape)
    channels, height, width = check_sizes(
        "image_shape", image_shape, ("channels", "height", "width")
    )
    pixels = channels * height * width
    if pixels != in_features:
        raise ValueError(
            f"image_shape={image_shape} has {pixels} pixels and in_features is {in_features}; "
            "expected one axon for each pixel"
        )
    axons = receptive_field_wiring(
        (channels, height, width),
        neurons,
        synapses,
        sheet_shape,
        patch=patch,
        claw=claw,
        seed=seed,
    )
    return SparseSynapses(axons, in_features, sheet_shape)


class Granule(Population):
    """Cerebellar granule cells: 4 dendrites, 15 synapses from 4 axons, a 3x4x5 filter.

    More than half of the brain's neurons, and its smallest: a dendrite's claw grips one mossy
    fibre, and the T-shaped axon runs on to the Purkinje cells. See `Population` for arguments and
    shapes.
    """

    physiology = GRANULE_DETTMERS2015


class Purkinje(Population):
    """Purkinje cells: 1,000 dendrites, 100,000 synapses, a 10x1000x5 filter, linear summation.

    Smaller ones are made with `sheet_shape` and `filter_shape`. See `Population` for arguments and
    shapes.
    """

    physiology = PURKINJE_DETTMERS2015
