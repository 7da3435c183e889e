"""The report's first lines: the essay's reading, and what it rests on."""

from dataclasses import replace

import numpy as np
from rich.text import Text

from neuroconv.brain.estimate import Estimate
from neuroconv.brain.grid import algorithm_of
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, derived, scientific
from neuroconv.brain.readings import READINGS, reading_of
from neuroconv.brain.updates import flop_per_second


def headline(inputs: Inputs) -> tuple[Quantity, ...]:
    """Returns the worth of the dendritic non-linearity, also like for like, and the FFT's saving.

    They are ratios of the Purkinje cells' FLOP/s, with all inputs at their values.
    """
    step = replace(READINGS["executed"], steps="last")
    worth, saving = "worth of the dendritic non-linearity", "saving of the algorithm that runs"
    pairs = (
        (worth, "essay", "linear_collapse"),
        (f"{worth} for one step", "one_step", "linear_collapse"),
        (saving, "essay", "executed"),
        (f"{worth} for one step, by the algorithm that runs", step, "linear_collapse"),
    )
    ratios = []
    for name, upper, lower in pairs:
        above, below = (
            flop_per_second(reading_of(reading), inputs.values_at_point)["purkinje"]
            for reading in (upper, lower)
        )
        title = "`executed`, of its one new step," if upper is step else f"`{upper}`"
        basis = f"{title} / `{lower}`, Purkinje cells"
        ratios.append(derived(name, above / below, "1", basis))
    return tuple(ratios)


def headline_text(estimate: Estimate) -> Text:
    """Returns the first lines: the essay's reading and its basis; the estimate's interval."""
    inputs = estimate.inputs
    at_point = inputs.values_at_point
    worth, one_step, saving, one_step_executed = (ratio.value for ratio in headline(inputs))
    essay = flop_per_second(READINGS["essay"], at_point)
    linear = flop_per_second(READINGS["linear_collapse"], at_point)["purkinje"]
    terms = int(at_point["purkinje.synapses"] * at_point["time_steps"])
    algorithm = algorithm_of("purkinje", inputs)
    model = (
        " (2.5 n log2 n FLOP for a transform of n real points, and the products of the "
        "spectra; filters transformed again at each update)"
        if "Fourier" in algorithm
        else ""
    )
    steps = int(at_point["time_steps"])
    cells = ", ".join(f"{cell} {scientific(value)}" for cell, value in essay.items())
    text = Text.assemble(
        (f"The essay's reading: {scientific(sum(essay.values()))} FLOP/s", "bold"),
        f" ({cells}).\n",
        (f"Its whole case is the dendritic non-linearity: x {worth:,.0f}.", "bold"),
        " Were dendrites linear up to the soma, filter and sum of a Purkinje cell would be one "
        f"dot product of {terms:,} terms, and all Purkinje cells {scientific(linear)} FLOP/s. "
        f"Of the factor, {worth / one_step:,.3g} comes from recomputing all {steps} steps; for "
        f"one step from each, the non-linearity is worth x {one_step:,.0f}.\n",
        (f"The same output costs 1/{saving:,.0f}", "bold"),
        f" of the Purkinje cells' FLOP by {algorithm}{model}. Computed so, the non-linearity is "
        f"worth x {one_step_executed:,.3g} for one step.\n",
    )
    low, middle, high = (scientific(level, 2) for level in estimate.quantiles())
    if estimate.value is not None and estimate.reading is not None:
        above = int(np.sum(estimate.samples >= estimate.value))
        ranges = [inputs[name] for name in estimate.free]
        at_top = sum(row.high is not None and row.value == row.high.value for row in ranges)
        text.append(
            f"Over the inputs' ranges, read as {estimate.reading.name}: {low} to {high} (90 %), "
            f"median {middle}; {above:,} of {len(estimate.samples):,} draws reach the value "
            f"{scientific(estimate.value)}, which takes the upper end of {at_top} of the "
            f"{len(ranges)} ranges.\n"
        )
    else:
        mix = ", ".join(f"{row.name} {share:.3g}" for row, share in estimate.weights.items())
        text.append(
            f"Mixed with your weights ({mix}): {low} to {high} (90 %), median {middle}; readings "
            "differ in kind, and no weights are right by themselves.\n"
        )
    return text
