"""Presets of the variant `dettmers2015`: Tim Dettmers' numbers, section by section.

What the essay leaves open and a model needs is marked "chosen" or "derived", with its reason.
"""

from neuroconv.neurons.cell_numbers import Physiology
from neuroconv.references import Source


def _essay(section: str, note: str = "") -> Source:
    return Source("dettmers2015", f"'{section}'", note)


_FILTER = "Estimating the cerebellar filter sizes"
_DIMENSIONS = "Estimating the cerebellar input/output dimensions"
_TOGETHER = "Putting it all together"
_NUMBERS = "Defining the model's reference numbers"

_SOMA = _essay(_FILTER, "a 1x1x5 filter in the soma, the same for all neurons")
_WAIT = _essay("Back to the LNP model", "figure of the Poisson(0.5) distribution")
_RATE = _essay(
    "How do we use these numbers?",
    "about 200 action potentials a second of an average neuron, in the simpler model told there; "
    "'Learning and memory in the brain' says 50 to 1,000 times a second",
)
_NO_LAW = Source(
    "chosen", "[dettmers2015] names the linear law for Purkinje cells and none for this cell"
)

GRANULE_DETTMERS2015 = Physiology(
    cell="granule",
    variant="dettmers2015",
    cells_in_brain=50_000_000_000,
    synapses=15,
    dendrites=4,
    sheet_shape=(4, 4),
    filter_shape=(3, 4, 5),
    soma_time_steps=5,
    claw=True,
    outputs=100,
    mean_wait=0.5,
    excites=True,
    summation="linear",
    rate_hz=200.0,
    sources={
        "cells_in_brain": _essay(_TOGETHER, "50 of the brain's 86 billion neurons"),
        "synapses": _essay(_DIMENSIONS, "about four axons with 3 to 4 synapses each, about 15"),
        "dendrites": _essay(_TOGETHER, "about 4 dendrites"),
        "sheet_shape": Source(
            "chosen", "4 sites on each of the 4 `dendrites`, the fewest that hold 15 `synapses`"
        ),
        "filter_shape": _essay(_FILTER, "3 branches on each of 4 dendrites, 5 time steps"),
        "soma_time_steps": _SOMA,
        "claw": _essay(_DIMENSIONS, "an axon's synapses sit on one dendrite's claw"),
        "outputs": _essay(_DIMENSIONS, "about 100 synapses with Purkinje cells"),
        "mean_wait": _WAIT,
        "excites": Source("chosen", "as in [isope2002]; the essay does not say"),
        "summation": _NO_LAW,
        "rate_hz": _RATE,
    },
)

PURKINJE_DETTMERS2015 = Physiology(
    cell="purkinje",
    variant="dettmers2015",
    cells_in_brain=100_000_000,
    synapses=100_000,
    dendrites=1000,
    sheet_shape=(100, 1000),
    filter_shape=(10, 1000, 5),
    soma_time_steps=5,
    claw=False,
    outputs=1000,
    mean_wait=0.5,
    excites=False,
    summation="linear",
    rate_hz=200.0,
    sources={
        "cells_in_brain": _essay(_TOGETHER, "about 100 million Purkinje cells"),
        "synapses": _essay(_DIMENSIONS, "about 100,000 inputs (75,000 would be conservative)"),
        "dendrites": _essay(_TOGETHER, "about 1,000 dendrites"),
        "sheet_shape": Source("derived", "100 sites: the `synapses` divided by the `dendrites`"),
        "filter_shape": _essay(_FILTER, "about 10x1000x5"),
        "soma_time_steps": _SOMA,
        "claw": _essay(_DIMENSIONS, "each of the 100,000 inputs is a granule cell's own axon"),
        "outputs": _essay(_DIMENSIONS, "about 1,000 connections in the deep nuclei"),
        "mean_wait": _WAIT,
        "excites": Source("chosen", "as in [person2012]; the essay does not say"),
        "summation": _essay(_FILTER, "Purkinje neurons are known to sum linearly"),
        "rate_hz": _RATE,
    },
)

DEEP_NUCLEAR_DETTMERS2015 = Physiology(
    cell="deep_nuclear",
    variant="dettmers2015",
    cells_in_brain=12,
    synapses=1000,
    dendrites=10,
    sheet_shape=(100, 10),
    filter_shape=(10, 10, 5),
    soma_time_steps=5,
    claw=False,
    mean_wait=0.5,
    excites=True,
    summation="linear",
    rate_hz=200.0,
    sources={
        "cells_in_brain": _essay(
            _TOGETHER,
            "about a dozen deep nuclei: the essay counts nuclei, not cells, and its unit here is a "
            "whole nucleus",
        ),
        "synapses": Source(
            "chosen",
            "the about 1,000 connections of a Purkinje cell ([dettmers2015], "
            "'Estimating the cerebellar input/output dimensions') taken as the inputs of a unit",
            "the essay gives no such number; all 1e8 x 1,000 connections on a dozen nuclei would "
            "be 8.3e9 each",
        ),
        "dendrites": Source("chosen", "1,000 `synapses` at 100 sites each; see `sheet_shape`"),
        "sheet_shape": Source(
            "chosen",
            "100 sites a dendrite, as the Purkinje cell of "
            "[dettmers2015] has, for 1,000 `synapses`",
        ),
        "filter_shape": Source(
            "chosen", "10 branches and 5 steps, as the Purkinje cell of [dettmers2015] has"
        ),
        "soma_time_steps": _SOMA,
        "claw": Source("chosen", "as the Purkinje cell of [dettmers2015]"),
        "mean_wait": _WAIT,
        "excites": Source("chosen", "as in [uusisaari2011]; the essay does not say"),
        "summation": _NO_LAW,
        "rate_hz": _RATE,
    },
)

PYRAMIDAL_DETTMERS2015 = Physiology(
    cell="pyramidal",
    variant="dettmers2015",
    cells_in_brain=21_500_000_000,
    synapses=10_000,
    dendrites=100,
    sheet_shape=(100, 100),
    filter_shape=(10, 100, 5),
    soma_time_steps=5,
    claw=False,
    mean_wait=0.5,
    excites=True,
    summation="linear",
    rate_hz=200.0,
    sources={
        "cells_in_brain": Source(
            "derived",
            f"a quarter of 86 billion neurons: [dettmers2015], '{_NUMBERS}'",
            "all neurons of the cerebrum, not the pyramidal ones alone",
        ),
        "synapses": Source(
            "derived",
            f"the middle of 5,000 to 15,000 of an average cortical neuron: [dettmers2015], "
            f"'{_NUMBERS}'",
        ),
        "dendrites": Source("chosen", "10,000 `synapses` at 100 sites each; see `sheet_shape`"),
        "sheet_shape": Source(
            "chosen",
            "100 sites a dendrite, as the Purkinje cell of "
            "[dettmers2015] has, for 10,000 `synapses`",
        ),
        "filter_shape": Source(
            "chosen", "10 branches and 5 steps, as the Purkinje cell of [dettmers2015] has"
        ),
        "soma_time_steps": _SOMA,
        "claw": Source("chosen", "as the Purkinje cell of [dettmers2015]"),
        "mean_wait": _WAIT,
        "excites": Source("chosen", "as in [luebke2017]; the essay does not say"),
        "summation": _NO_LAW,
        "rate_hz": _RATE,
    },
)
