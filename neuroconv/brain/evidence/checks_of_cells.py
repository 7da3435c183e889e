"""Checks of the essay's counts: cells, dendrites, synapses and connections."""

from neuroconv.brain.evidence.check import Check
from neuroconv.brain.evidence.essay import (
    CEREBELLAR_SYNAPSES,
    CEREBELLUM_SHARE,
    CEREBRAL_SYNAPSES,
    COMPARISON,
    CONNECTION_SHARE,
    DENDRITES,
    DIMENSIONS,
    NEURONS,
    NUMBERS,
    SYNAPSES,
    of_preset,
    stated,
)
from neuroconv.brain.quantity import Quantity, derived


def _sum_over(name: str, field: str, unit: str) -> Quantity:
    """Over all granule and Purkinje cells."""
    terms = [
        (of_preset(cell, "cells_in_brain"), of_preset(cell, field))
        for cell in ("granule", "purkinje")
    ]
    return derived(
        name,
        sum(cells.value * each.value for cells, each in terms),
        unit,
        " + ".join(f"`{cells.name}` x `{each.name}`" for cells, each in terms),
    )


def whole_checks() -> tuple[Check, ...]:
    """The brain's totals against the cerebellum's."""
    dendrites = _sum_over("cerebellum.dendrites", "dendrites", "dendrites")
    synapses = _sum_over("cerebellum.synapses", "synapses", "synapses")
    granule = of_preset("granule", "cells_in_brain")
    purkinje = of_preset("purkinje", "cells_in_brain")
    cells = granule.value + purkinje.value
    rest = NEURONS.value - cells
    three_quarters = derived(
        "cerebellum.neurons",
        CEREBELLUM_SHARE.value * NEURONS.value,
        "neurons",
        f"`{CEREBELLUM_SHARE.name}` x `{NEURONS.name}`",
    )
    each = derived(
        "cerebellum.synapses_per_cell",
        synapses.value / cells,
        "synapses",
        f"`{synapses.name}` / (`{granule.name}` + `{purkinje.name}`)",
    )
    cerebrum = of_preset("pyramidal", "cells_in_brain")
    per_neuron = of_preset("pyramidal", "synapses")
    cerebral = cerebrum.value * per_neuron.value
    by_averages = derived(
        "brain.synapses_by_averages",
        three_quarters.value * CEREBELLAR_SYNAPSES.value + cerebral,
        "synapses",
        f"`{three_quarters.name}` x `{CEREBELLAR_SYNAPSES.name}` + `{cerebrum.name}` x "
        f"`{per_neuron.name}`",
    )
    fewest = cerebrum.value * CEREBRAL_SYNAPSES[0].value
    share = derived(
        "cerebellum.synapse_share",
        synapses.value / (synapses.value + cerebral),
        "1",
        f"`{synapses.name}` of itself and `{cerebrum.name}` x `{per_neuron.name}`",
    )
    return (
        Check(
            name="dendrites",
            claim="an adult brain has about 300 billion dendrites",
            stated=(DENDRITES,),
            implied=dendrites,
            expects="part",
            finding=f"granule and Purkinje cells alone have {dendrites.shown}: none is left for "
            f"the other {rest / 1e9:.1f} billion neurons",
        ),
        Check(
            name="synapses",
            claim="an adult brain has about 10 trillion synapses",
            stated=(SYNAPSES,),
            implied=synapses,
            expects="part",
            finding=f"granule and Purkinje cells alone have {synapses.shown}: none is left for "
            f"the other {rest / 1e9:.1f} billion neurons",
        ),
        Check(
            name="synapses by averages",
            claim="about 25,000 synapses on an average neuron of the cerebellum, 5,000 to 15,000 "
            "on one of the cerebrum",
            stated=(SYNAPSES,),
            implied=by_averages,
            finding=f"the averages make {by_averages.value / SYNAPSES.value:,.0f} times the 10 "
            f"trillion; the cerebrum, at its fewest, makes {fewest / SYNAPSES.value:.3g} times",
        ),
        Check(
            name="synapses of a cerebellar neuron",
            claim="an average neuron of the cerebellum has about 25,000 synapses",
            stated=(CEREBELLAR_SYNAPSES,),
            implied=each,
            finding=f"its cells' own numbers make {each.value:.0f}: nearly all of them are granule "
            f"cells, of {of_preset('granule', 'synapses').value} synapses",
        ),
        Check(
            name="neurons of the cerebellum",
            claim="the cerebellum holds about three quarters of 86 billion neurons",
            stated=(three_quarters,),
            implied=derived(
                "cerebellum.cells", cells, "cells", f"`{granule.name}` + `{purkinje.name}`"
            ),
            finding=f"three quarters are {three_quarters.shown}; the cells that the estimate "
            f"counts are {cells / NEURONS.value:.0%} of all",
        ),
        Check(
            name="connections of the cerebellum",
            claim="the cerebellum holds about three quarters of the connections",
            stated=(CONNECTION_SHARE,),
            implied=share,
            finding=f"by the essay's own sizes it holds {share.value:.1%}, the cerebrum the rest",
        ),
    )


def wiring_checks() -> tuple[Check, ...]:
    """One cell's connections against another's."""
    cells, each = of_preset("granule", "cells_in_brain"), of_preset("granule", "outputs")
    targets, inputs = of_preset("purkinje", "cells_in_brain"), of_preset("purkinje", "synapses")
    outputs = derived(
        "granule.all_outputs",
        cells.value * each.value,
        "connections",
        f"`{cells.name}` x `{each.name}`",
    )
    needed = derived(
        "purkinje.all_inputs",
        targets.value * inputs.value,
        "connections",
        f"`{targets.name}` x `{inputs.name}`",
    )
    out_degree = needed.value / cells.value
    axons = of_preset("granule", "dendrites")
    claw = tuple(
        derived(
            f"granule.claw.{name}",
            axons.value * contacts,
            "synapses",
            f"`{axons.name}`, one axon each, x {contacts} contacts: [dettmers2015], '{DIMENSIONS}'",
        )
        for name, contacts in (("low", 3), ("high", 4))
    )
    most = stated(
        "neuron.dendrites.high",
        100_000,
        "dendrites",
        COMPARISON,
        "hundreds of thousands, taken as one: fewer than that it cannot mean",
    )
    child_neurons = stated("child.neurons", 10**11, "neurons", NUMBERS, "over 100 billion")
    child_dendrites = stated(
        "child.dendrites", 15 * 10**10, "dendrites", NUMBERS, "over 150 billion"
    )
    child = derived(
        "child.dendrites_as_adult",
        child_neurons.value * DENDRITES.value / NEURONS.value,
        "dendrites",
        f"`{child_neurons.name}` x `{DENDRITES.name}` / `{NEURONS.name}`",
    )
    return (
        Check(
            name="granule outputs",
            claim="a Purkinje cell has about 100,000 inputs from granule cells, each of which has "
            "about 100 outputs",
            stated=(needed,),
            implied=outputs,
            finding=f"an exact in-degree of {inputs.value:,} forces an out-degree of "
            f"{out_degree:g}; {each.value} fill {outputs.value / targets.value:,.0f} inputs",
        ),
        Check(
            name="granule inputs",
            claim="about 15 synapses from four axons, three or four each",
            stated=claw,
            implied=of_preset("granule", "synapses"),
            expects="within",
            finding="in the range",
        ),
        Check(
            name="dendrites of one neuron",
            claim="a neuron has fewer than 5 dendrites or up to hundreds of thousands",
            stated=(most,),
            implied=of_preset("purkinje", "dendrites"),
            finding="the Purkinje cell, by far the most complex neuron there, is given "
            f"{of_preset('purkinje', 'dendrites').value:,}: likely its synapses are meant",
        ),
        Check(
            name="dendrites of a child",
            claim="a child has over 100 billion neurons and over 150 billion dendrites",
            stated=(child_dendrites,),
            implied=child,
            expects="at least",
            finding="a lower bound, so nothing is contradicted: but a child with more neurons and "
            "synapses than an adult is credited with half of the adult's dendrites",
        ),
    )
