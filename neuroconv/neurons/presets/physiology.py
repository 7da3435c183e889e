"""A preset: the numbers of a cell type, each with its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, get_args, get_type_hints

from neuroconv.core.arguments import NonNegative, Positive, Size, checked
from neuroconv.layers.cable import Cable
from neuroconv.layers.summation import Law
from neuroconv.layers.tree_shape import Filter, Sheet, TreeShape
from neuroconv.references import Source

Variant = Literal["dettmers2015", "literature"]
VARIANTS: tuple[str, ...] = get_args(Variant)

FRAME_MS = 1000 / 30  # the essay's frame, which is a time step


@checked
@dataclass(frozen=True, kw_only=True)
class Physiology:
    """The numbers of one cell type; None stands for a number without a source.

    Attributes:
        cell: name of the cell type.
        variant: name of the set of numbers: "dettmers2015" for the essay's, "literature".
        cells_in_brain: number in a human brain.
        synapses, dendrites, outputs: of one cell. Outputs are contacts, or the cells contacted
            where the source counts those.
        sheet_shape: (sites, dendrites), the positions where synapses can sit.
        filter_shape: (branches, dendrites, time_steps) of the dendritic filter.
        soma_time_steps: taps of the soma's temporal filter.
        claw: whether the sites of a dendrite share one axon.
        mean_wait: mean waiting period before firing, in time steps.
        excites: whether the cell excites its targets (Dale's law: all of them or none).
        site_summation: law by which inputs to one dendrite add up, over its sites.
        summation: law by which the dendrites' rates add up.
        length_constant_um: lambda of a dendrite as a cable, in micrometres, by a membrane that
            counts the spines': sqrt(R_m d / (4 R_i F)), F the membrane with spines to that without.
        time_constant_ms: tau of the cable equation, in milliseconds: R_m C_m, which spines do not
            change. The decay that a soma shows, the system time constant, may be faster.
        site_um: length of dendrite per synapse, in micrometres.
        rate_hz: mean or resting firing rate, in spikes per second.
        sources: the source of every attribute from `cells_in_brain` on that is not None.

    Raises:
        ValueError: a value or a source without the other, a source that names a missing field, a
            number out of range, or numbers that do not fit together.
    """

    cell: str
    variant: Variant
    cells_in_brain: Annotated[Size | None, "cells"] = None
    synapses: Annotated[Size, "synapses"]
    sheet_shape: Annotated[Sheet, "sites x dendrites"]
    filter_shape: Annotated[Filter, "branches x dendrites x steps"]
    soma_time_steps: Annotated[Size, "steps"]
    claw: Annotated[bool, ""]
    outputs: Annotated[Size | None, "connections"] = None
    mean_wait: Annotated[NonNegative, "steps"]
    excites: Annotated[bool, ""]
    site_summation: Annotated[Law, ""]
    summation: Annotated[Law, ""]
    dendrites: Annotated[Size, "dendrites"]
    length_constant_um: Annotated[Positive | None, "um"] = None
    time_constant_ms: Annotated[Positive | None, "ms"] = None
    site_um: Annotated[Positive | None, "um"] = None
    rate_hz: Annotated[Positive | None, "Hz"] = None
    sources: Mapping[str, Source]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        self._check_sources()
        self._check_fit()

    def _check_sources(self) -> None:
        cell = f"{self.cell} {self.variant}"
        given = {name for name in UNITS if getattr(self, name) is not None}
        unsourced, unused = sorted(given - set(self.sources)), sorted(set(self.sources) - given)
        if unsourced or unused:
            raise ValueError(
                f"{cell}: no source for {unsourced}, no value for {unused}; give both or neither"
            )
        for name, source in self.sources.items():
            missing = [other for other in source.names if getattr(self, other, None) is None]
            if missing:
                raise ValueError(
                    f"{cell}: the source of {name} names {missing[0]!r}, which has no value here"
                )

    def _check_fit(self) -> None:
        sites, columns = TreeShape(self.sheet_shape, self.filter_shape, self.synapses).sheet
        if columns != self.dendrites:
            raise ValueError(
                f"sheet_shape={self.sheet_shape} with dendrites={self.dendrites}; expected "
                "(sites, dendrites)"
            )
        branches, across, _ = self.filter_shape
        if branches > sites or across > columns:
            raise ValueError(
                f"filter_shape={self.filter_shape} does not fit sheet_shape={self.sheet_shape}; "
                "expected at most its sites and its dendrites"
            )

    @property
    def axons(self) -> int:
        """Axons that one cell receives: one for each dendrite's claw, else one for each synapse."""
        return self.dendrites if self.claw else self.synapses

    def cable(self, step_ms: float = FRAME_MS) -> Cable:
        """Returns its dendrite as a cable at the sheet's sites; ValueError without constants."""
        length, time, site = self.length_constant_um, self.time_constant_ms, self.site_um
        if length is None or time is None or site is None:
            raise ValueError(
                f"{self.cell} {self.variant}: length_constant_um={length}, time_constant_ms="
                f"{time}, site_um={site}; a cable needs all three; pass your own to layers.Cable"
            )
        return Cable(length, time, site, step_ms)

    def cut_off(self, step_ms: float = FRAME_MS) -> float | None:
        """Returns the share of the membrane's exponential response after the filter's last step."""
        if self.time_constant_ms is None:
            return None
        return math.exp(-self.filter_shape[-1] * step_ms / self.time_constant_ms)


_HINTS = get_type_hints(Physiology, include_extras=True)
# The fields that have a source, with the unit of each; "" for a yes or no, or a name.
UNITS: Mapping[str, str] = MappingProxyType(
    {name: hint.__metadata__[-1] for name, hint in _HINTS.items() if hasattr(hint, "__metadata__")}
)
