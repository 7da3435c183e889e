"""A preset: the numbers of a cell type, each with its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal, get_args

from neuroconv.core.checks import check_choice, check_positive, check_room, check_sizes
from neuroconv.layers.cable import Cable
from neuroconv.layers.summation import LAWS, Law
from neuroconv.references import Source

Variant = Literal["dettmers2015", "literature"]
VARIANTS: tuple[str, ...] = get_args(Variant)

FRAME_MS = 1000 / 30  # the essay's frame, which is a time step

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "cells_in_brain": "cells",
        "synapses": "synapses",
        "sheet_shape": "sites x dendrites",
        "filter_shape": "branches x dendrites x steps",
        "soma_time_steps": "steps",
        "claw": "",
        "outputs": "connections",
        "mean_wait": "steps",
        "excites": "",
        "summation": "",
        "dendrites": "dendrites",
        "length_constant_um": "um",
        "time_constant_ms": "ms",
        "site_um": "um",
        "rate_hz": "Hz",
    }
)


@dataclass(frozen=True, kw_only=True)
class Physiology:
    """The numbers of one cell type.

    None stands for a number without a source.

    Attributes:
        cell: name of the cell type.
        variant: name of the set of numbers: "dettmers2015" for the essay's, "literature".
        cells_in_brain: how many a human brain has.
        synapses: synapses of one cell.
        sheet_shape: (sites, dendrites), the positions where synapses can sit.
        filter_shape: (branches, dendrites, time_steps) of the dendritic filter.
        soma_time_steps: taps of the soma's temporal filter.
        claw: whether the sites of a dendrite share one axon.
        outputs: output connections of one cell.
        mean_wait: mean waiting periods before firing, in time steps.
        excites: whether the cell excites what it contacts (Dale's law: all or nothing of it).
        summation: law by which the dendrites' rates add up.
        dendrites: dendrites of one cell.
        length_constant_um: lambda of a dendrite, in micrometres.
        time_constant_ms: tau of the membrane, in milliseconds.
        site_um: length of dendrite to a synapse, in micrometres.
        rate_hz: mean or resting firing rate, in spikes per second.
        sources: for each of these from `cells_in_brain` on that is not None, where it comes from.

    Raises:
        ValueError: a value without a source or a source without a value, a source that names a
            field which is not there, a number out of range, or numbers that do not fit together.
    """

    cell: str
    variant: Variant
    synapses: int
    dendrites: int
    sheet_shape: tuple[int, int]
    filter_shape: tuple[int, int, int]
    soma_time_steps: int
    claw: bool
    mean_wait: float
    excites: bool
    summation: Law
    cells_in_brain: int | None = None
    outputs: int | None = None
    length_constant_um: float | None = None
    time_constant_ms: float | None = None
    site_um: float | None = None
    rate_hz: float | None = None
    sources: Mapping[str, Source]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))
        check_choice("variant", self.variant, VARIANTS)
        check_choice("summation", self.summation, LAWS)
        self._check_sources()
        self._check_fit()

    def _check_sources(self) -> None:
        who = f"{self.cell} {self.variant}"
        given = {name for name in UNITS if getattr(self, name) is not None}
        unsourced, unused = sorted(given - set(self.sources)), sorted(set(self.sources) - given)
        if unsourced or unused:
            raise ValueError(
                f"{who}: no source for {unsourced}, no value for {unused}; give both or neither"
            )
        for name, source in self.sources.items():
            missing = [other for other in source.names if getattr(self, other, None) is None]
            if missing:
                raise ValueError(
                    f"{who}: the source of {name} names {missing[0]!r}, which has no value here"
                )

    def _check_fit(self) -> None:
        counts = {"cells_in_brain": self.cells_in_brain, "outputs": self.outputs}
        check_positive(
            dendrites=self.dendrites,
            soma_time_steps=self.soma_time_steps,
            **{name: count for name, count in counts.items() if count is not None},
        )
        sites, columns = check_sizes("sheet_shape", self.sheet_shape, ("sites", "dendrites"))
        check_room(self.synapses, self.sheet_shape)
        if columns != self.dendrites:
            raise ValueError(
                f"sheet_shape={self.sheet_shape} with dendrites={self.dendrites}; expected "
                "(sites, dendrites)"
            )
        axes = ("branches", "dendrites", "time_steps")
        branches, across, _ = check_sizes("filter_shape", self.filter_shape, axes)
        if branches > sites or across > columns:
            raise ValueError(
                f"filter_shape={self.filter_shape} does not fit sheet_shape={self.sheet_shape}; "
                "expected at most its sites and its dendrites"
            )
        if not 0 <= self.mean_wait < math.inf:
            raise ValueError(f"mean_wait={self.mean_wait}; expected 0 or more time steps")
        for name in ("length_constant_um", "time_constant_ms", "site_um", "rate_hz"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value}; expected a positive number of {UNITS[name]}")

    def cable(self, step_ms: float = FRAME_MS) -> Cable:
        """Returns the cell's dendrite as a cable, sampled at the sheet's sites and steps.

        Raises:
            ValueError: a constant that has no source.
        """
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


# `Physiology` and UNITS must not drift apart: a field without a unit would go unchecked.
assert {field.name for field in fields(Physiology)} == {*UNITS, "cell", "variant", "sources"}
