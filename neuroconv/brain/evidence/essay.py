"""The essay's own numbers as quantities, and what they come to by the modules' closed forms."""

import math

from neuroconv.brain.quantity import Quantity, derived, whole
from neuroconv.brain.readings import READINGS
from neuroconv.brain.updates import Sizes, update_cost
from neuroconv.neurons import Variant, preset
from neuroconv.neurons.presets import UNITS
from neuroconv.references import Source

EVALUATION = "Evaluating current predictions of a technological singularity"
NUMBERS = "Defining the model's reference numbers"
USE = "How do we use these numbers?"
COMPARISON = "Part II: The brain vs. deep learning - a comparative analysis"
LEARNING = "Learning and memory in the brain"
FILTER = "Estimating the cerebellar filter sizes"
DIMENSIONS = "Estimating the cerebellar input/output dimensions"
LIMITS = "Part III: Limitations and criticism"
GROWTH = "Recent trends in the growth of computing power"
CONCLUSION = "Conclusion"


def essay(section: str, note: str = "") -> Source:
    """The essay, at one of its sections."""
    return Source("dettmers2015", f"'{section}'", note)


def stated(name: str, value: float, unit: str, section: str, note: str = "") -> Quantity:
    """A number that the essay prints."""
    return Quantity(name=name, value=value, unit=unit, source=essay(section, note))


def of_preset(cell: str, field: str, variant: Variant = "dettmers2015") -> Quantity:
    """A number of a cell's preset, with the preset's source.

    Raises:
        ValueError: an unknown cell or variant, or a field without a value.
    """
    numbers = preset(cell, variant)
    value = getattr(numbers, field)
    if not isinstance(value, int | float):
        raise ValueError(f"{cell}.{field}={value!r} of {variant}; expected a number")
    return Quantity(
        name=f"{cell}.{field}", value=whole(value), unit=UNITS[field], source=numbers.sources[field]
    )


NEURONS = stated("brain.neurons", 86_000_000_000, "neurons", NUMBERS, "adult")
SYNAPSES = stated("brain.synapses", 10**13, "synapses", NUMBERS, "adult, about 10 trillion")
DENDRITES = stated("brain.dendrites", 3 * 10**11, "dendrites", NUMBERS, "adult, about 300 billion")
CEREBELLUM_SHARE = stated("cerebellum.share", 0.75, "1", NUMBERS, "of all neurons, about 3/4")
CONNECTION_SHARE = stated(
    "cerebellum.connection_share", 0.75, "1", NUMBERS, "caption: 3/4 of neurons and connections"
)
CEREBRUM_SHARE = stated("cerebrum.share", 0.25, "1", NUMBERS, "of all neurons, about 1/4")
CEREBELLAR_SYNAPSES = stated(
    "cerebellum.synapses_per_neuron", 25_000, "synapses", NUMBERS, "of an average neuron"
)
CEREBRAL_SYNAPSES = (
    stated("cerebrum.synapses_per_neuron.low", 5_000, "synapses", NUMBERS),
    stated("cerebrum.synapses_per_neuron.high", 15_000, "synapses", NUMBERS),
)
TOTAL = stated(
    "brain.flop_per_second",
    1075 * 10**18,
    "FLOP/s",
    DIMENSIONS,
    "printed 1.075 x 10^21; its formula is a picture, and the text does not repeat it",
)
SPIKE_RATES = (
    stated("rate.low", 50, "Hz", LEARNING, "most neurons, by type and activity"),
    stated("rate.high", 1_000, "Hz", LEARNING, "most neurons, by type and activity"),
)
FRAME_RATE = stated("frame_rate", 30, "1/s", FILTER, "a time step is a frame of normal video")
FASTEST = stated("hpcg.start", 58 * 10**13, "FLOP/s", DIMENSIONS, "Tianhe-2, July 2013")
DOUBLINGS = derived(
    "doublings",
    math.log2(TOTAL.value / FASTEST.value),
    "1",
    f"log2(`{TOTAL.name}` / `{FASTEST.name}`)",
)
FLOP_PER_MAC = Quantity(
    name="flop_per_mac",
    value=2,
    unit="FLOP/MAC",
    source=Source(
        "chosen",
        "with `purkinje.rate_hz` as the updates of a second it makes the total that "
        "[dettmers2015] prints",
        "the usual convention; the essay names none",
    ),
)


def sizes_of(cell: str) -> Sizes:
    """The dendritic tree of a cell by the essay."""
    numbers = preset(cell, "dettmers2015")
    branches, _, time_steps = numbers.filter_shape
    return Sizes(numbers.synapses, numbers.dendrites, branches, time_steps)


def update_mac(cell: str, reading: str = "essay", filter_of: str | None = None) -> int:
    """MAC of one update of one cell, as its modules state it.

    Args:
        cell: whose synapses.
        reading: what is counted: a key of `READINGS`.
        filter_of: whose filter, and whose sheet it is laid on; default the cell's own.
    """
    through = None if filter_of is None else sizes_of(filter_of)
    return update_cost(READINGS[reading], cell, sizes_of(cell), through).mac


def flop_per_second(
    cell: str, mac: int | None = None, how: str = "", name: str = "flop_per_second"
) -> Quantity:
    """What all cells of a type take, by the essay's rule at its rate.

    Args:
        cell: the type.
        mac: of one update of one cell; default by the essay's rule, with the cell's own filter.
        how: what `mac` counts, for the source.
        name: of the quantity, after the cell's.
    """
    cells, rate = of_preset(cell, "cells_in_brain"), of_preset(cell, "rate_hz")
    mac = update_mac(cell) if mac is None else mac
    return derived(
        f"{cell}.{name}",
        FLOP_PER_MAC.value * rate.value * cells.value * mac,
        "FLOP/s",
        f"`flop_per_mac` x `{rate.name}` x `{cells.name}` x {mac:,} MAC of one update, "
        + (how or "the closed form of `layers.dendrite.DendriticConv` by the essay's rule"),
    )
