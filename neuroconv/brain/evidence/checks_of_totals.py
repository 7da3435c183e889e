"""Checks of the essay's rates and of its totals."""

from neuroconv.brain.evidence.check import Check
from neuroconv.brain.evidence.essay import (
    CONCLUSION,
    DOUBLINGS,
    EVALUATION,
    FILTER,
    FRAME_RATE,
    GROWTH,
    SPIKE_RATES,
    TOTAL,
    flop_per_second,
    of_preset,
    stated,
    update_mac,
)
from neuroconv.brain.quantity import derived, scientific
from neuroconv.neurons import preset


def time_checks() -> tuple[Check, ...]:
    """Rates, frames and years."""
    rate = of_preset("purkinje", "rate_hz")
    steps = derived(
        "window.steps",
        preset("purkinje", "dettmers2015").filter_shape[-1],
        "steps",
        f"[dettmers2015], '{FILTER}': the last axis of the filter",
    )
    ends = tuple(
        derived(
            f"window.{name}",
            FRAME_RATE.value * milliseconds / 1000,
            "steps",
            f"`{FRAME_RATE.name}` x {milliseconds} ms: [dettmers2015], '{FILTER}'",
        )
        for name, milliseconds in (("low", 80), ("high", 200))
    )
    known = stated("neuroscience.known_in_2005", 0.00098, "1", EVALUATION, "0.098 %, of 2015's")
    doubled = derived(
        "neuroscience.ten_doublings", 2.0**-10, "1", "2^-10: [dettmers2015], doubling each year"
    )
    low, high = (each.value / rate.value for each in SPIKE_RATES)
    return (
        Check(
            name="firing rate",
            claim="an average neuron fires about 200 times a second; most, 50 to 1,000 times",
            stated=SPIKE_RATES,
            implied=rate,
            expects="within",
            finding=f"in the range, whose ends would make the total {low:g} and {high:g} times it",
        ),
        Check(
            name="clock",
            claim="time steps are frames, 30 a second; the neuron fires about 200 times a second",
            stated=(FRAME_RATE,),
            implied=rate,
            finding=f"the window of {steps.value} frames lasts "
            f"{1000 * steps.value / FRAME_RATE.value:.0f} ms; computed anew at each spike it is "
            f"gone over {rate.value * steps.value / FRAME_RATE.value:.0f} times, and each frame "
            f"{rate.value / FRAME_RATE.value:.1f} times too often. That the updates are the "
            "spikes is our reconstruction",
        ),
        Check(
            name="window",
            claim="conscious recognition takes 80 to 200 ms at 30 frames a second",
            stated=ends,
            implied=steps,
            expects="within",
            finding="in the range",
        ),
        Check(
            name="knowledge in 2005",
            claim="neuroscience doubles each year: in 2005 we knew 0.098 % of today's",
            stated=(known,),
            implied=doubled,
            tolerance=5e-6 / 0.00098,  # half of the last digit of 0.098 %
            finding="ten doublings in ten years",
        ),
    )


def total_checks() -> tuple[Check, ...]:
    """The sum, as printed and as its own sizes make it."""
    purkinje, granule = flop_per_second("purkinje"), flop_per_second("granule")
    own = derived(
        "cerebellum.flop_per_second",
        purkinje.value + granule.value,
        "FLOP/s",
        f"`{purkinje.name}` + `{granule.name}`",
        "each cell's synapses through its own filter",
    )
    crossed = flop_per_second(
        "granule",
        update_mac("granule", filter_of="purkinje"),
        "granule synapses through the Purkinje cell's filter",
        "flop_per_second_crossed",
    )
    cortex = flop_per_second("pyramidal")
    dendrites = of_preset("pyramidal", "dendrites").value
    level = dendrites * purkinje.value / cortex.value
    whole = derived(
        "brain.flop_per_second_with_cortex",
        own.value + cortex.value,
        "FLOP/s",
        f"`{own.name}` + `{cortex.name}`",
        "the preset's number of dendrites on a pyramidal cell is chosen",
    )
    exact = purkinje.value + crossed.value == TOTAL.value
    return (
        Check(
            name="total",
            claim="1.075 x 10^21 FLOP/s",
            stated=(TOTAL,),
            implied=own,
            tolerance=0.0005 / 1.075,
            finding=f"its own sizes make {scientific(own.value, 6)}, of which granule cells "
            f"{granule.shown}; {'exactly the printed' if exact else 'not the printed'} figure "
            "comes out if every synapse, the granule cells' too, passes through the Purkinje "
            "cell's filter: one reading of a formula that is lost",
        ),
        Check(
            name="total with the cortex",
            claim="the estimate is for the entire brain, and the cerebellum makes up nearly all of "
            "it",
            stated=(TOTAL,),
            implied=whole,
            finding=f"the sum has no cortex; by the same rule and the essay's sizes it adds "
            f"{cortex.shown} FLOP/s, {cortex.value / purkinje.value:.3g} times the Purkinje "
            f"cells'. That is in proportion to a pyramidal cell's dendrites, {dendrites} chosen "
            f"here: they draw level at {level:.1f}",
        ),
        Check(
            name="total in the conclusion",
            claim="at least 10x^21 operations a second, as printed there",
            stated=(
                stated(
                    "conclusion.flop_per_second",
                    10**22,
                    "FLOP/s",
                    CONCLUSION,
                    "10x^21, read as 10 x 10^21",
                ),
            ),
            implied=TOTAL,
            finding="a slip of the pen: read as 10^21 it fits",
        ),
        Check(
            name="doublings",
            claim="21 doublings from the fastest computer to the brain",
            stated=(stated("doublings.printed", 21, "1", GROWTH),),
            implied=DOUBLINGS,
            tolerance=0.5 / 21,
            finding=f"{DOUBLINGS.value:.2f}, rounded",
        ),
    )
