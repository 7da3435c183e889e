"""Readings of the estimate: the structural choices that no interval may blend."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from neuroconv.core.checks import check_choice
from neuroconv.kernels.conv import MODES, Mode

CEREBELLUM = ("purkinje", "granule")
SIZES = ("synapses", "dendrites", "branches")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the essay's formula.

    Attributes:
        name: what it is called in options and files.
        title: what it is, in a line.
        padding: of the dendritic convolution: "same" (the essay's cost), "valid", "per_dendrite".
        steps: an update recomputes all steps of its window ("window"), or computes the new step
            ("last") while the dendrites remember the others.
        clock: an update for each spike of the mean rate ("rate"), or for each frame ("frame").
        algorithm: what of an update is counted: "essay" (synapses x steps x taps), "direct" (a
            direct convolution, padding zeros included), "executed" (what the package runs: a
            Fourier transform, by the cost model 2.5 n log2 n FLOP, matrix products or a
            convolution), or "linear" (no dendritic non-linearity: one dot product for each step
            that comes out).
        scope: "dendrites" alone, as the essay counts, or the whole "neuron", all stages of it.
        cells: the cell types that are summed.
        granule_filter: the granule cell's "own", or the "purkinje" cell's, which the printed total
            seems to have been computed with.

    Raises:
        ValueError: an unknown choice, or choices that do not go together.
    """

    name: str
    title: str = ""
    padding: Mode = "same"
    steps: Literal["window", "last"] = "window"
    clock: Literal["rate", "frame"] = "rate"
    algorithm: Literal["essay", "direct", "executed", "linear"] = "essay"
    scope: Literal["dendrites", "neuron"] = "dendrites"
    cells: tuple[str, ...] = CEREBELLUM
    granule_filter: Literal["own", "purkinje"] = "own"

    def __post_init__(self) -> None:
        check_choice("padding", self.padding, MODES)
        check_choice("steps", self.steps, ("window", "last"))
        check_choice("clock", self.clock, ("rate", "frame"))
        check_choice("algorithm", self.algorithm, ("essay", "direct", "executed", "linear"))
        check_choice("scope", self.scope, ("dendrites", "neuron"))
        check_choice("granule_filter", self.granule_filter, ("own", "purkinje"))
        for cell in self.cells:
            check_choice("cells", cell, (*CEREBELLUM, "pyramidal"))
        if self.algorithm in ("essay", "linear") and self.padding != "same":
            raise ValueError(
                f"padding={self.padding!r} with algorithm={self.algorithm!r}, which knows no "
                "padding; expected 'same', or algorithm 'direct' or 'executed'"
            )
        if self.algorithm == "linear" and self.scope == "neuron":
            raise ValueError(
                "scope='neuron' with algorithm='linear': a linear neuron has no further stages; "
                "expected scope='dendrites'"
            )
        if self.granule_filter == "purkinje" and (self.algorithm, self.scope) != (
            "essay",
            "dendrites",
        ):
            raise ValueError(
                "granule_filter='purkinje' is the essay's arithmetic and no module's; expected "
                "algorithm='essay' and scope='dendrites'"
            )

    @property
    def clock_input(self) -> str:
        return f"{self.clock}_hz"

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the inputs that it depends on."""
        cells = [f"{cell}.{what}" for cell in self.cells for what in ("cells", *SIZES)]
        return (*cells, "time_steps", self.clock_input, "flop_per_mac")


def _readings(*readings: Reading) -> Mapping[str, Reading]:
    return MappingProxyType({each.name: each for each in readings})


READINGS = _readings(
    Reading(name="essay", title="the essay's: all five steps recomputed at each spike"),
    Reading(
        name="published",
        title="one way to the printed total: granule inputs through the Purkinje-sized filter",
        granule_filter="purkinje",
    ),
    Reading(
        name="whole_neuron", title="the essay's, and all other stages of the neuron", scope="neuron"
    ),
    Reading(
        name="with_cortex",
        title="the essay's, and the cortex's pyramidal cells by the same method",
        cells=(*CEREBELLUM, "pyramidal"),
    ),
    Reading(name="one_step", title="one new step at each spike", steps="last"),
    Reading(
        name="one_step_per_frame", title="one new step at each frame", steps="last", clock="frame"
    ),
    Reading(
        name="valid", title="full overlaps only, all steps", padding="valid", algorithm="direct"
    ),
    Reading(
        name="valid_one_step",
        title="full overlaps only, one new step",
        padding="valid",
        steps="last",
        algorithm="direct",
    ),
    Reading(
        name="executed",
        title="the essay's output by the algorithm that runs here",
        algorithm="executed",
    ),
    Reading(
        name="linear_collapse",
        title="linear dendrites: one dot product at each spike",
        steps="last",
        algorithm="linear",
    ),
)


def reading_of(given: str | Reading) -> Reading:
    """The reading of that name.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(given, Reading):
        return given
    if given not in READINGS:
        raise ValueError(f"reading {given!r} is unknown; expected one of {', '.join(READINGS)}")
    return READINGS[given]
