"""A brain's power, and what it leaves for one of the estimate's FLOPs."""

import math

from neuroconv.brain.evidence.essay import TOTAL
from neuroconv.brain.quantity import Quantity, derived
from neuroconv.references import Source

POWER = Quantity(
    name="brain.power",
    value=20,
    unit="W",
    source=Source("levy2021", "abstract", "glucose, the oft-quoted figure"),
)
COMPUTING_POWER = Quantity(
    name="brain.power.computing",
    value=0.1,
    unit="W",
    source=Source("levy2021", "abstract", "ATP for computation in the cortex"),
)
SIGNALLING_POWER = Quantity(
    name="brain.power.signalling",
    value=3.5,
    unit="W",
    source=Source("levy2021", "abstract", "ATP for long-distance communication in the cortex"),
)
BODY_TEMPERATURE = Quantity(
    name="body_temperature",
    value=310.15,
    unit="K",
    source=Source("chosen", "37 degrees Celsius, at which to take the bound of [landauer1961]"),
)
BOLTZMANN = Quantity(
    name="boltzmann_constant",
    value=1.380649e-23,
    unit="J/K",
    source=Source("chosen", "exact in the SI since 2019; enters the bound of [landauer1961]"),
)


def energies() -> tuple[Quantity, ...]:
    """The brain's power, and what it leaves for one FLOP of the essay's, beside Landauer's bound.

    The bound holds for a bit that is erased, and a FLOP erases many: that they come within a
    factor of ten says that no ordinary machine of 20 W could execute the estimate.
    """
    for_each = derived(
        "brain.energy_per_flop",
        POWER.value / TOTAL.value,
        "J",
        f"`{POWER.name}` / `{TOTAL.name}`: [dettmers2015], [levy2021]",
    )
    bound = derived(
        "landauer_bound",
        BOLTZMANN.value * BODY_TEMPERATURE.value * math.log(2),
        "J",
        f"`{BOLTZMANN.name}` x `{BODY_TEMPERATURE.name}` x ln 2, to erase a bit: [landauer1961]",
    )
    ratio = derived(
        "brain.energy_per_flop_to_bound",
        for_each.value / bound.value,
        "1",
        f"`{for_each.name}` / `{bound.name}`",
    )
    return (POWER, COMPUTING_POWER, SIGNALLING_POWER, for_each, bound, ratio)
