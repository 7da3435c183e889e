"""What every stage owes: its stated cost, gradients, half precision, meta tensors, a state_dict."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.flops import count_exact
from neuroconv.layers import (
    Cable,
    DendriticConv,
    DendriticRate,
    DendriticSpike,
    DendriticSummation,
    FiringRate,
    LastStep,
    PoissonDropout,
    PoissonSpikes,
    ReleaseOrWait,
    SomaFilter,
    Taps,
    TreeShape,
)
from neuroconv.layers.threshold import ThresholdNorm
from tests.layers.test_layers_synapse import COMBINATIONS, synapses

# What builds a stage, and the shape of its input.
Stage = tuple[Callable[[], Any], tuple[int, ...]]
AXONS, SHEET, RATE, SOMA = (3, 5, 4), (3, 2, 4, 4, 3), (3, 2, 4, 5), (3, 2, 5)


def cable() -> DendriticConv:
    layer = DendriticConv(2, TreeShape((4, 3), (3, 3, 2)), bias=False)
    layer.diffuse(Cable(100.0, 20.0, 50.0, 10.0), trainable=False)
    return layer


STAGES: dict[str, Stage] = {
    **{
        f"{kind}_dale{dale:d}_vesicles{vesicles:d}_{transmitters}": (
            lambda arguments=(kind, dale, vesicles, transmitters): synapses(*arguments),
            AXONS,
        )
        for kind, dale, vesicles, transmitters in COMBINATIONS
    },
    "threshold": (lambda: ThresholdNorm(2), SHEET),
    "threshold_step": (lambda: ThresholdNorm(2, empty_positions=1, norm_over="step"), SHEET),
    "threshold_empty": (lambda: ThresholdNorm(2, empty_positions=1), SHEET),
    "threshold_half_empty": (lambda: ThresholdNorm(2, empty_positions=5), SHEET),
    **{
        f"conv_{mode}_{backend}": (
            # A bias is a stage of its own in what a neuron costs.
            lambda mode=mode, backend=backend: DendriticConv(
                2, TreeShape((4, 3), (2, 3, 3), mode=mode), Taps(backend=backend), bias=False
            ),
            SHEET,
        )
        for mode in ("same", "valid", "per_dendrite")
        for backend in ("direct", "fft", "matmul")
    },
    "cable": (cable, SHEET),
    **{
        f"spike_{name}": (lambda keywords=keywords: DendriticSpike(**keywords), SHEET)
        for name, keywords in {
            "plain": {},
            "soft": {"temperature": 0.5},
            "weak_window": {"strength": 0.5, "window": 2},
            "none": {"strength": 0.0, "window": 3},
            "branch": {"window": 1},
            "essay": {"strength": 0.5, "window": 2, "signal": "essay"},
            "learned": {
                "strength": 0.5,
                "temperature": 0.5,
                "learn_strength": True,
                "learn_threshold": True,
            },
            "learned_pull": {"strength": 0.5, "window": 3, "learn_strength": True},
        }.items()
    },
    **{
        f"rate_{reduction}_{linear:d}": (
            lambda arguments=(reduction, linear): DendriticRate(*arguments),
            SHEET,
        )
        for reduction in ("mean", "sum", "max")
        for linear in (False, True)
    },
    "rate_of_one_site": (lambda: DendriticRate(law="sublinear"), (*SHEET[:3], 1, 3)),
    "rate_sigmoidal": (lambda: DendriticRate("sum", law="sigmoidal", learnable=True), SHEET),
    "summation_linear": (lambda: DendriticSummation(scale=0.25), RATE),
    **{
        f"summation_{law}_{learnable:d}": (
            lambda law=law, learnable=learnable: DendriticSummation(law, 0.5, learnable=learnable),
            RATE,
        )
        for law in ("sublinear", "supralinear", "sigmoidal")
        for learnable in (False, True)
    },
    "soma": (lambda: SomaFilter(3), SOMA),
    "soma_per_neuron": (lambda: SomaFilter(4, 2), SOMA),
    "soma_of_maps": (lambda: SomaFilter(3), (*SOMA, 2, 3)),
    "firing": (lambda: FiringRate(), SOMA),
    "last_step": (lambda: LastStep(), SOMA),
    "wait": (lambda: PoissonDropout(0.5), SOMA),
    "redraw_of_maps": (lambda: PoissonDropout(0.5, "redraw"), (*SOMA, 2, 3)),
    "independent": (lambda: PoissonDropout(0.5, "independent"), SOMA),
    "redraw_units": (lambda: PoissonDropout(0.5, "redraw", "unit"), (*SOMA, 2, 3)),
    "activity": (lambda: PoissonDropout(0.5, clock="activity"), (*SOMA, 2, 3)),
    "gate": (lambda: ReleaseOrWait(), SOMA),
    "branch": (lambda: ReleaseOrWait(0.5, 20.0, 5.0), SOMA),
    "spikes": (lambda: PoissonSpikes(0.5), SOMA),
}

every_stage = pytest.mark.parametrize("name", STAGES)


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A stage and an input of distinct values, none near zero: no tie, nothing at a kink."""
    build, shape = STAGES[name]
    size = torch.Size(shape).numel()
    values = (torch.randperm(size) - size / 2 + 0.25) / (0.4 * size)
    return build(), values.view(shape)


@every_stage
def test_its_stated_cost_is_what_runs(name: str) -> None:
    stage, x = built(name)
    costs = stage.closed_form(x.shape)
    counts = count_exact(stage, x, device="meta")
    assert counts.uncounted == {}
    assert {family: macs for cost in costs for family, macs in cost.macs.items()} == counts.macs
    assert sum(cost.pointwise for cost in costs) == sum(counts.flops.values())


@every_stage
def test_on_meta_it_has_the_same_shapes(name: str) -> None:
    stage, x = built(name)
    with torch.device("meta" if "dale1" not in name else "cpu"):  # signs are given, on the CPU
        meta = STAGES[name][0]().to("meta")
    assert meta(x.to("meta")).shape == stage(x).shape
    assert {k: v.shape for k, v in meta.state_dict().items()} == {
        k: v.shape for k, v in stage.state_dict().items()
    }


@every_stage
def test_half_precision_is_near(name: str) -> None:
    stage, x = built(name)
    stage.eval()
    expected = stage(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = stage(x.bfloat16())
    assert (half.float() - expected).abs().max() <= 2e-2 * expected.abs().max()
    assert stage.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@every_stage
def test_a_state_dict_carries_it(name: str) -> None:
    (stage, x), (other, _) = built(name), built(name)
    for tensor in (*other.parameters(), *other.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    stage.load_state_dict(other.state_dict())
    assert torch.equal(stage.eval()(x), other.eval()(x))


@every_stage
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_gradcheck(name: str, fast: bool) -> None:
    stage, x = built(name)
    stage.double().eval()
    if getattr(stage, "signal", "max") == "essay":
        stage.signal = "max"  # the essay's learning signal is no gradient, by intention
    learned = {key: p for key, p in stage.named_parameters() if p.requires_grad}

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        arguments = dict(zip(learned, parameters, strict=True))
        return torch.func.functional_call(stage, arguments, (x,))

    inputs = (x.double().requires_grad_(), *learned.values())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=fast)
