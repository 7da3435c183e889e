"""The report's first lines: what the essay's reading comes to, and what it rests on."""

from dataclasses import replace

import numpy as np
from rich.text import Text

from neuroconv.brain.estimate import Estimate
from neuroconv.brain.grid import what_ran
from neuroconv.brain.inputs import Inputs
from neuroconv.brain.quantity import Quantity, scientific
from neuroconv.brain.readings import READINGS, Reading
from neuroconv.brain.updates import flop_per_second
from neuroconv.references import Source


def headline(inputs: Inputs) -> tuple[Quantity, ...]:
    """What the dendritic non-linearity is worth, like for like too, and what the FFT saves.

    Of the Purkinje cells, with all inputs at their values: ratios of FLOP/s.
    """
    at_point = inputs.values_at_point

    def purkinje(reading: Reading) -> float:
        return flop_per_second(reading, at_point)["purkinje"]

    essay, linear = purkinje(READINGS["essay"]), purkinje(READINGS["linear_collapse"])
    ratios = (
        ("worth of the dendritic non-linearity", essay / linear, "`essay` / `linear_collapse`"),
        (
            "worth of the dendritic non-linearity for one step",
            purkinje(READINGS["one_step"]) / linear,
            "`one_step` / `linear_collapse`",
        ),
        (
            "saving of the algorithm that runs",
            essay / purkinje(READINGS["executed"]),
            "`essay` / `executed`",
        ),
        (
            "worth of the dendritic non-linearity for one step, by the algorithm that runs",
            purkinje(replace(READINGS["executed"], steps="last")) / linear,
            "`executed`, of its one new step, / `linear_collapse`",
        ),
    )
    return tuple(
        Quantity(
            name=name, value=value, unit="1", source=Source("derived", f"{how}, Purkinje cells")
        )
        for name, value, how in ratios
    )


def headline_text(estimate: Estimate) -> Text:
    """The first lines: the essay's reading and what it rests on; the estimate's interval."""
    inputs = estimate.inputs
    at_point = inputs.values_at_point
    worth, one_step, saving, one_step_by_it = (each.value for each in headline(inputs))
    essay = flop_per_second(READINGS["essay"], at_point)
    linear = flop_per_second(READINGS["linear_collapse"], at_point)["purkinje"]
    terms = int(at_point["purkinje.synapses"] * at_point["time_steps"])
    runs = what_ran("purkinje", inputs)
    model = (
        " (2.5 n log2 n FLOP for a transform of n real points, and the products of the "
        "spectra; filters transformed anew at each update)"
        if "Fourier" in runs
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
        f"Of the factor, {worth / one_step:,.3g} comes of computing all {steps} steps anew; for "
        f"one step from each, the non-linearity is worth x {one_step:,.0f}.\n",
        (f"The same output costs 1/{saving:,.0f}", "bold"),
        f" of the Purkinje cells' FLOP by {runs}{model}. Computed so, the non-linearity is worth "
        f"x {one_step_by_it:,.3g} for one step.\n",
    )
    if estimate.value is not None and estimate.reading is not None:
        above = int(np.sum(estimate.samples >= estimate.value))
        ranges = (inputs[name] for name in estimate.free)
        at_top = sum(each.high is not None and each.value == each.high.value for each in ranges)
        low, middle, high = estimate.quantiles()
        text.append(
            f"Over the inputs' ranges, read as {estimate.reading.name}: {scientific(low, 2)} to "
            f"{scientific(high, 2)} (90 %), median {scientific(middle, 2)}; {above:,} of "
            f"{len(estimate.samples):,} draws reach the value {scientific(estimate.value)}, "
            f"which takes the upper end of {at_top} of the {len(estimate.free)} ranges.\n"
        )
    else:
        mix = ", ".join(f"{each.name} {share:.3g}" for each, share in estimate.weights.items())
        low, middle, high = estimate.quantiles()
        text.append(
            f"Mixed as asked for ({mix}): {scientific(low, 2)} to {scientific(high, 2)} (90 %), "
            f"median {scientific(middle, 2)}; readings differ in kind, and the weights are yours.\n"
        )
    return text
