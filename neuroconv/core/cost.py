"""What a layer costs, stated by the layer itself.

Every layer of neuroconv that multiplies has a method

    closed_form(*input_shapes: torch.Size) -> tuple[Cost, ...]

which returns one row per stage of the neuron, from sizes alone: nothing is run. The counters of
`neuroconv.flops` measure the same layer independently, and tests hold the two equal.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Cost of one stage on one input, for the whole batch and all its time steps.

    Attributes:
        stage: the stage of the neuron: "synapses", "dendrites", "soma" ...
        macs: multiply-adds of the algorithm that runs, by operator family: "convolution", "matmul"
            and "fft" (a transform's FLOPs halved, see `fft_macs`).
        pointwise: FLOPs of all that is no contraction, in evaluation: the products of sparse
            synapses and of an FFT convolution's spectra, norms, activations and sums.
        neurons: neurons per sample. Stated by the dendrites only: a neuron has one dendritic tree.
        synapses: synapses per sample, over all neurons. Stated by the synapses only.
        essay: multiply-adds by the essay's rule, synapses x time steps x taps. Dendrites only.
        direct: multiply-adds of a direct convolution of the sheet, padding zeros counted.
            Dendrites only.
    """

    stage: str
    macs: Mapping[str, int] = field(default_factory=dict)
    pointwise: int = 0
    neurons: int = 0
    synapses: int = 0
    essay: int | None = None
    direct: int | None = None

    @property
    def linear(self) -> bool:
        """Synapses and dendrites: their pointwise products are part of a linear map."""
        return bool(self.synapses) or self.essay is not None

    @property
    def executed_flop(self) -> int:
        """FLOPs of the multiply-adds of the algorithm that runs: contractions, and the products of
        synapses, each half a multiply-add, and of an FFT's spectra."""
        return 2 * sum(self.macs.values()) + (self.pointwise if self.linear else 0)

    @property
    def executed(self) -> int:
        """`executed_flop` in multiply-adds, rounded down."""
        return self.executed_flop // 2

    @property
    def other(self) -> int:
        """FLOPs that are no multiply-adds: norms, activations, sums."""
        return 0 if self.linear else self.pointwise

    @property
    def flop(self) -> int:
        """FLOPs of everything."""
        return 2 * sum(self.macs.values()) + self.pointwise


def fft_macs(points: int, *, real: bool = True) -> int:
    """Multiply-adds of one fast Fourier transform by the radix-2 cost model.

    The usual model is 5 n log2 n FLOPs for a complex transform of n points and half of that for a
    real one; a multiply-add is two FLOPs. What a library executes for a given n differs by a small
    factor: the model is named wherever the number is shown.
    """
    flops_per_point = (2.5 if real else 5.0) * math.log2(points) if points > 1 else 0.0
    return round(points * flops_per_point / 2)
