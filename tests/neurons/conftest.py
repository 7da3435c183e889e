"""Neurons of every option, tiny and in float64, for the tests of whole neurons to share."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from torch import nn

from neuroconv.layers import (
    Cable,
    DendriticSpike,
    ParallelFibres,
    PoissonSpikes,
    ReceptiveField,
    ReleaseOrWait,
)  # fmt: skip
from neuroconv.neurons import GranuleConv2d, Population, Purkinje
from neuroconv.neurons.stages import merge

AXONS = 6


def make_lively(module: nn.Module) -> nn.Module:
    """Every parameter and every statistic off its initial value, so that each one matters."""
    for name, parameter in module.named_parameters():
        if name.endswith(("bias", "soma.weight")) or "norm" in name:
            nn.init.normal_(parameter, 0.3, 0.5)
        # A neuron that never fires would test nothing.
        if name in ("bias", "soma_norm.bias"):
            nn.init.constant_(parameter[0], 0.5)
        elif name == "soma.weight":
            nn.init.constant_(parameter[..., -1], 0.8)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.3)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    return module.double().eval()


def _cells(**options: Any) -> Callable[[], Population]:
    """What builds two cells of a 4 x 3 sheet. Options that are callable are made for each cell."""

    def build() -> Any:
        stages = {name: value() if callable(value) else value for name, value in options.items()}
        sizes = {"tree": {"sheet": (4, 3), "filter": (2, 3, 3)}, "soma": {"time_steps": 2}}
        return make_lively(Purkinje(AXONS, 2, **merge(sizes, stages)))

    return build


def _spike(*arguments: float, **options: Any) -> Callable[[], DendriticSpike]:
    return partial(DendriticSpike, *arguments, **options)


_CABLE = Cable(300.0, 40.0, 100.0, 20.0)

POPULATIONS: Mapping[str, Callable[[], Population]] = MappingProxyType(
    {
        "plain": _cells(),
        "claw": _cells(wiring={"claw": True}),
        "parallel": _cells(wiring="in_order"),
        "parallel_fibres": _cells(wiring=ParallelFibres(1), synapse={"excitatory": 0.5}),
        "dense": _cells(wiring="all_to_all", tree={"synapses": 7}),
        "dense_dale": _cells(
            wiring="all_to_all", synapse={"excitatory": 0.5, "factorized": True, "transmitters": 2}
        ),
        "receptive_field": _cells(wiring=ReceptiveField((1, 2, 3), (2, 2), claw=True)),
        "few_synapses": _cells(tree={"synapses": 5}),
        "dale": _cells(synapse={"excitatory": 0.5}),
        "factorized": _cells(synapse={"factorized": True}),
        "dale_factorized": _cells(
            synapse={"excitatory": 0.5, "factorized": True}, tree={"synapses": 10}
        ),
        "transmitters": _cells(synapse={"transmitters": 3}, tree={"mode": "valid"}),
        "transmitters_norm": _cells(synapse={"transmitters": 2, "excitatory": 0.5}, norm="both"),
        "threshold": _cells(threshold=0.5),
        "threshold_empty": _cells(threshold=1.0, tree={"synapses": 7}, synapse={"transmitters": 2}),
        "norm_dendrites": _cells(norm="dendrites"),
        "norm_soma": _cells(norm="soma"),
        "norm_both": _cells(norm="both", tree={"mode": "per_dendrite"}),
        "norm_over_step": _cells(
            norm="both", norm_over="step", threshold=1.0, tree={"synapses": 7}
        ),
        "valid": _cells(tree={"mode": "valid"}, norm="dendrites"),
        "per_dendrite": _cells(tree={"mode": "per_dendrite"}),
        "direct": _cells(taps={"backend": "direct"}, tree={"mode": "valid"}),
        "fft": _cells(taps={"backend": "fft"}),
        "fft_per_dendrite": _cells(
            taps={"backend": "fft"}, tree={"mode": "per_dendrite", "filter": (3, 3, 2)}
        ),
        "even_filter": _cells(tree={"filter": (4, 2, 2)}),
        "one_step": _cells(tree={"filter": (3, 2, 1)}, soma={"time_steps": 1}),
        "one_site": _cells(tree={"sheet": (1, 4), "filter": (1, 2, 4)}, soma={"time_steps": 3}),
        "equalized_lr": _cells(taps={"equalized_lr": True}),
        "cable": _cells(taps={"cable": _CABLE}, tree={"mode": "per_dendrite"}),
        "fixed_cable": _cells(
            taps={"cable": _CABLE, "trainable": False, "equalized_lr": True}, tree={"mode": "valid"}
        ),
        "spike": _cells(spike=_spike()),
        "spike_half": _cells(spike=_spike(0.5, 0.4)),
        "spike_window": _cells(spike=_spike(0.7, -0.2, window=2)),
        "spike_soft": _cells(spike=_spike(0.8, 0.1, temperature=0.5, window=3)),
        "spike_learned": _cells(
            spike=_spike(0.6, 0.2, temperature=0.3, learn_strength=True, learn_threshold=True)
        ),
        "spike_essay": _cells(spike=_spike(0.9, signal="essay"), norm="dendrites"),
        "linear_dendrites": _cells(rate={"linear": True}),
        "rate_sum": _cells(rate={"reduction": "sum"}),
        "rate_max": _cells(rate={"reduction": "max"}),
        "sublinear": _cells(summation="sublinear"),
        "supralinear": _cells(
            summation={"law": "supralinear", "knee": 1.7, "exponent": 1.3}, rate={"linear": True}
        ),
        "sigmoidal": _cells(
            summation={"law": "sigmoidal", "exponent": 2.5, "learnable": True},
            rate={"reduction": "sum"},
        ),
        "law_within": _cells(rate={"law": "supralinear", "knee": 0.3}, norm="both"),
        "both_laws": _cells(
            rate={"law": "sigmoidal", "reduction": "sum", "exponent": 2.5, "learnable": True},
            summation={"law": "sublinear", "knee": 0.7},
        ),
        "soma_per_neuron": _cells(soma={"neurons": 2, "time_steps": 3}),
        "spikes": _cells(output=partial(PoissonSpikes, 0.25)),
        "release_or_wait": _cells(output=partial(ReleaseOrWait, wait_ms=20.0, step_ms=8.0)),
        "everything": _cells(
            wiring="parallel_fibres",
            synapse={"excitatory": 0.5, "factorized": True, "transmitters": 2},
            tree={"synapses": 11, "mode": "valid"},
            threshold=1.5,
            norm="both",
            taps={"equalized_lr": True},
            spike=_spike(0.9, 0.1, temperature=0.2, window=3, learn_strength=True),
            summation="sigmoidal",
            soma={"neurons": 2},
        ),
    }
)


def _units(*sizes: Any, **options: Any) -> Callable[[], GranuleConv2d]:
    def build() -> Any:
        stages = {name: value() if callable(value) else value for name, value in options.items()}
        return make_lively(GranuleConv2d(*sizes or (2, 2, (2, 3)), **{"time_steps": 3} | stages))

    return build


IMAGE_LAYERS: Mapping[str, Callable[[], GranuleConv2d]] = MappingProxyType(
    {
        "plain": _units(),
        "still": _units(time_steps=1),
        "claw": _units(4, 2, (2, 3), groups=2, wiring="claw"),
        "still_claw": _units(
            4, 2, (2, 3), padding="same", dilation=2, wiring="claw", time_steps=1
        ),
        "groups": _units(4, 4, (2, 2), groups=2, bias=False),
        "depthwise": _units(4, 4, (2, 3), (2, 1), (1, 2), (1, 2), groups=4, time_steps=1),
        "still_groups": _units(4, 4, (2, 2), groups=2, time_steps=1),
        "geometry": _units(2, 2, (2, 3), (1, 2), (2, 1), (2, 2)),
        "same": _units(padding="same"),
        "norm": _units(norm="both"),
        "norm_dendrites": _units(norm="dendrites", time_steps=1),
        "norm_soma": _units(norm="soma", bias=False),
        "threshold": _units(threshold=0.8),
        "spike": _units(spike=_spike()),
        "spike_window": _units(spike=_spike(0.6, 0.1, window=2)),
        "spike_soft": _units(
            spike=_spike(0.8, 0.1, temperature=0.5, window=3, learn_strength=True)
        ),
        "spike_essay": _units(spike=_spike(0.9, window=3, signal="essay"), time_steps=1),
        "linear_dendrites": _units(linear_dendrites=True, summation="supralinear"),
        "sublinear": _units(summation="sublinear", soma={"time_steps": 1}),
        "sigmoidal": _units(summation="sigmoidal", soma={"time_steps": 2}),
        "norm_over_step": _units(norm="both", norm_over="step", threshold=1.0),
        "still_with_memory": _units(time_steps=1, soma={"time_steps": 3}, threshold=1.0),
        "everything": _units(
            4, 2, (2, 3), 1, 1, wiring="claw", norm="both", threshold=1.0, summation="sigmoidal",
            spike=_spike(0.5, 0.1, window=3), soma={"time_steps": 4},
        ),
    }
)  # fmt: skip


@pytest.fixture
def lively() -> Callable[[nn.Module], nn.Module]:
    """Puts a module in float64 and eval mode, every parameter and statistic off its start."""
    return make_lively


@pytest.fixture(params=POPULATIONS)
def population(request: pytest.FixtureRequest) -> Population:
    """Two cells of six axons, in float64 and eval mode: one test for each set of options."""
    return POPULATIONS[request.param]()


@pytest.fixture(params=IMAGE_LAYERS)
def image_layer(request: pytest.FixtureRequest) -> GranuleConv2d:
    """Two or more granule units, in float64 and eval mode: one test for each set of options."""
    return IMAGE_LAYERS[request.param]()
