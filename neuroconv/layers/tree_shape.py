"""The sizes of a dendritic tree: its sheet of sites, its filter, and how the two overlap.

Shapes: P sites along a dendrite, D dendrites; K_T, K_P, K_D the filter's time steps, branches and
dendrites.
"""

from dataclasses import dataclass
from typing import Annotated

from neuroconv.core.arguments import Rule, Size, checked
from neuroconv.kernels.conv.sizes import Mode, output_size

Sheet = Annotated[tuple[Size, Size], Rule("for (sites, dendrites)")]
Filter = Annotated[tuple[Size, Size, Size], Rule("for (branches, dendrites, time_steps)")]


@checked
@dataclass(frozen=True)
class TreeShape:
    """The sizes of a neuron's dendritic tree, checked.

    Args:
        sheet: (sites P, dendrites D), the positions where a synapse can sit.
        filter: (branches, dendrites, time_steps) of the dendritic filter, in the essay's order;
            `kernel` is the same in torch's. None for a tree that is wired but not filtered.
        synapses: synapses of one neuron, at most P * D. They fill the sheet dendrite by dendrite,
            and the last positions stay empty. None fills all of them.
        mode: how filter and sheet overlap: "same" (the essay's cost), "valid" (full overlaps
            alone) or "per_dendrite" (full overlaps along each dendrite by itself).

    Raises:
        ValueError: a size that is not positive, more synapses than positions, an unknown mode, or
            a filter that does not fit into the sheet.
    """

    sheet: Sheet
    filter: Filter | None = None
    synapses: Size | None = None
    mode: Mode = "same"

    def __post_init__(self) -> None:
        if self.filled > self.positions:
            expected = f"1 to {self.positions}, the positions of sheet={self.sheet}"
            raise ValueError(f"synapses={self.synapses}; expected {expected}")
        if self.filter is not None:
            output_size(self.sheet, self.kernel[1:], self.mode)

    @property
    def positions(self) -> int:
        """P * D, the synapses that the sheet has room for."""
        return self.sheet[0] * self.sheet[1]

    @property
    def filled(self) -> int:
        """The synapses of one neuron: `synapses`, or all positions where that is None."""
        return self.positions if self.synapses is None else self.synapses

    @property
    def kernel(self) -> tuple[int, int, int]:
        """The filter's (K_T, K_P, K_D), in torch's order; ValueError for a tree without one."""
        if self.filter is None:
            raise ValueError(f"{self} has no filter; expected (branches, dendrites, time_steps)")
        branches, dendrites, time_steps = self.filter
        return time_steps, branches, dendrites

    @property
    def out(self) -> tuple[int, int]:
        """(P', D') of the filter's output."""
        return output_size(self.sheet, self.kernel[1:], self.mode)
