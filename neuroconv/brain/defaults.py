"""The inputs' defaults: the essay's values, in ranges that span what the literature says.

Values and sources are those of the cells' presets (`neuroconv.neurons.physiology`) wherever these
have them.
"""

from neuroconv.brain.evidence.essay import FILTER, NUMBERS, essay
from neuroconv.brain.inputs import Distribution, Input, Inputs
from neuroconv.brain.quantity import Quantity, whole
from neuroconv.neurons import PRESETS
from neuroconv.references import Source

_UNITS = {
    "cells": ("cells_in_brain", "cells"),
    "synapses": ("synapses", "synapses"),
    "dendrites": ("dendrites", "dendrites"),
}


def _quantity(name: str, value: float, unit: str, source: Source) -> Quantity:
    return Quantity(name=name, value=whole(value), unit=unit, source=source)


def _preset(name: str, variant: str, title: str | None = None) -> Quantity:
    """ "purkinje.cells" and so on, as a preset has it."""
    cell, _, what = name.partition(".")
    numbers = PRESETS[cell, variant]
    if what == "branches":
        value, source, unit = numbers.filter_shape[0], numbers.sources["filter_shape"], "branches"
        return _quantity(title or name, value, unit, source)
    field, unit = _UNITS[what]
    return _quantity(title or name, getattr(numbers, field), unit, numbers.sources[field])


def _between(
    name: str,
    low: Quantity | tuple[float, Source] | None = None,
    high: Quantity | tuple[float, Source] | None = None,
    distribution: Distribution = "log-uniform",
) -> Input:
    """An input at the essay's value. A bound that is not given is the essay's value itself."""
    value = _preset(name, "dettmers2015")

    def bound(end: str, given: Quantity | tuple[float, Source] | None) -> Quantity:
        if given is None:
            given = value
        pair = (given.value, given.source) if isinstance(given, Quantity) else given
        return _quantity(f"{name}.{end}", pair[0], value.unit, pair[1])

    return Input(
        quantity=value, distribution=distribution, low=bound("low", low), high=bound("high", high)
    )


def _fixed(name: str) -> Input:
    return Input(quantity=_preset(name, "dettmers2015"))


def _rate() -> Input:
    mean, cortex = PRESETS["purkinje", "dettmers2015"], PRESETS["pyramidal", "literature"]
    assert mean.rate_hz is not None
    assert cortex.rate_hz is not None
    value = _quantity("rate_hz", mean.rate_hz, "1/s", mean.sources["rate_hz"])
    low = _quantity("rate_hz.low", cortex.rate_hz, "1/s", cortex.sources["rate_hz"])
    high = _quantity("rate_hz.high", mean.rate_hz, "1/s", mean.sources["rate_hz"])
    return Input(quantity=value, distribution="log-uniform", low=low, high=high)


def _time_steps() -> Input:
    def steps(name: str, value: float, note: str) -> Quantity:
        return _quantity(name, value, "steps", essay(FILTER, note))

    five = PRESETS["purkinje", "dettmers2015"].filter_shape[2]
    return Input(
        quantity=steps("time_steps", five, "chosen there, 'to make the calculation easier'"),
        distribution="uniform",
        low=steps("time_steps.low", 2.4, "80 ms, the fastest recognition, at 30 frames a second"),
        high=steps("time_steps.high", 6, "200 ms, the slowest recognition, at 30 frames a second"),
    )


# Up to 85 % of the synapses on a Purkinje cell gave no detectable response.
_RESPONDING = 0.15


def default_inputs() -> Inputs:
    """The essay's inputs; see the module. A new object at each call."""
    literature = _preset("purkinje.synapses", "literature")
    responding = Source(
        "derived",
        f"15 % of {literature.value:,}: up to 85 % give no detectable response ([isope2002], "
        "abstract) of the number in [napper1988], abstract",
        "rat. The essay calls 75,000 too conservative",
    )
    frame = essay(FILTER, "ordinary video; a time step is a frame")
    account = Source(
        "chosen",
        "a product and a sum; [dettmers2015]'s formula is a picture that has not survived, and its "
        "printed total needs 2",
    )
    return Inputs(
        (
            _between("purkinje.cells", (15_400_000, Source("nairn1989", "abstract", "12 brains"))),
            _between("purkinje.synapses", (_RESPONDING * literature.value, responding), literature),
            _between("purkinje.dendrites", _preset("purkinje.dendrites", "literature")),
            _fixed("purkinje.branches"),
            _between("granule.cells", None, _preset("granule.cells", "literature")),
            _between("granule.synapses", None, _preset("granule.synapses", "literature")),
            _fixed("granule.dendrites"),
            _fixed("granule.branches"),
            _between("pyramidal.cells", _preset("pyramidal.cells", "literature")),
            _between(
                "pyramidal.synapses",
                (
                    5_000,
                    essay(
                        NUMBERS,
                        "5,000 to 15,000 of an average cortical neuron",
                    ),
                ),
                (30_000, Source("eyal2016", "introduction", "15,000 to 30,000; layers 2 and 3")),
            ),
            _between("pyramidal.dendrites", _preset("pyramidal.dendrites", "literature")),
            _fixed("pyramidal.branches"),
            _time_steps(),
            _rate(),
            Input(quantity=_quantity("frame_hz", 30, "1/s", frame)),
            Input(quantity=_quantity("flop_per_mac", 2, "FLOP/MAC", account)),
        )
    )
