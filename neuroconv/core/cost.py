"""The cost of a layer, stated by the layer itself from sizes alone.

Every layer that multiplies has a method
`closed_form(*input_shapes: torch.Size) -> tuple[Cost, ...]`: one row per stage of the neuron.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Cost of one stage on one input, for the whole batch and all its time steps.

    Attributes:
        stage: the stage of the neuron: "synapses", "dendrites", "soma" ...
        macs: multiply-adds of the algorithm that runs, by "convolution", "matmul" and "fft".
        pointwise: FLOPs of everything but contractions, in evaluation: the products of sparse
            synapses and of an FFT convolution's spectra, norms, activations and sums.
        neurons: per sample; of dendrites only, since a neuron has one dendritic tree.
        synapses: per sample, over all neurons; of synapses only.
        essay: multiply-adds of dendrites by the essay's rule, synapses x time steps x taps.
        direct: those of a direct convolution of the sheet, padding zeros counted.
        filter_macs: those of `macs` that transform filters, whose result evaluation caches.
        past_macs: those of `macs` that transform steps before the computed ones once more.
        zeros: of `macs`, those with a weight that is zero because the wiring, or the filter, has
            none there: a dense product makes them because it is faster. Zeros around the sheet and
            before the window, which `direct` counts too, are not among them.
    """

    stage: str
    macs: Mapping[str, int] = field(default_factory=dict)
    pointwise: int = 0
    neurons: int = 0
    synapses: int = 0
    essay: int | None = None
    direct: int | None = None
    filter_macs: int = 0
    past_macs: int = 0
    zeros: int = 0

    @property
    def linear(self) -> bool:
        """Whether it is synapses or dendrites: their pointwise products belong to a linear map."""
        return bool(self.synapses) or self.essay is not None

    @property
    def executed_flop(self) -> int:
        """FLOPs of linear stages: contractions, the products of synapses and of FFTs' spectra."""
        return self.flop - self.other

    @property
    def executed(self) -> int:
        """`executed_flop` in multiply-adds, rounded down."""
        return self.executed_flop // 2

    @property
    def cached(self) -> int:
        """`executed` without the filters' transforms: a run in evaluation after the first."""
        return self.executed - self.filter_macs

    @property
    def stored(self) -> int:
        """`cached` without the past steps' transforms, were they stored; no module does that."""
        return self.cached - self.past_macs

    @property
    def other(self) -> int:
        """FLOPs that are not multiply-adds: norms, activations, sums."""
        return 0 if self.linear else self.pointwise

    @property
    def flop(self) -> int:
        return 2 * sum(self.macs.values()) + self.pointwise


def fft_macs(points: int, *, real: bool = True) -> int:
    """Returns the multiply-adds of a fast Fourier transform, half its FLOPs by the radix-2 model.

    5 n log2 n for a complex transform of n points, half for a real one; libraries differ a little.
    """
    flops_per_point = (2.5 if real else 5.0) * math.log2(points) if points > 1 else 0.0
    return round(points * flops_per_point / 2)
