"""The granular layer's feedback loop and the climbing fibres, against loops over single numbers."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv.flops import count_exact
from neuroconv.kernels.population import fuses
from neuroconv.layers import Cost
from neuroconv.neurons import Golgi, Granule
from neuroconv.neurons.stages import merge
from neuroconv.zoo import ClimbingFibres, GranularLayer, create_model

FIBRES, CELLS, GOLGI = 12, 10, 3


def granule(**keywords: Any) -> Granule:
    sizes = {"tree": {"filter": (3, 4, 3)}, "soma": {"time_steps": 2}, "output": {"mean_wait": 0.0}}
    return Granule(FIBRES, CELLS, **merge(sizes, keywords))


def golgi(**keywords: Any) -> Golgi:
    tree = {"sheet": (4, 5), "filter": (4, 5, 3), "mode": "per_dendrite"}
    return Golgi(CELLS, GOLGI, **merge({"tree": tree, "output": {"mean_wait": 0.0}}, keywords))


def layer(seed: int = 0, **keywords: Any) -> GranularLayer:
    """In float64 and evaluation, everything moved off its first value."""
    torch.manual_seed(seed)
    whole = GranularLayer(granule(**keywords), golgi(soma={"time_steps": 2}), seed=3)
    whole.double().eval()
    with torch.no_grad():
        for tensor in (*whole.parameters(), *whole.buffers()):
            if tensor.is_floating_point():
                tensor += 0.2 * torch.rand_like(tensor)
    return whole


def mossy(batch: int = 2, steps: int = 7) -> Tensor:
    return torch.rand(batch, FIBRES, steps, dtype=torch.float64)


# --- granule and Golgi cells


@torch.no_grad()
def loop(whole: GranularLayer, fibres: Tensor) -> Tensor:
    """Step by step and cell by cell; Golgi cells receive all steps up to the one before."""
    potential, _ = whole.granule.somatic_potential(fibres)
    wiring, weight = whole.inhibition.wiring.tolist(), whole.inhibition.weight
    rates = torch.zeros_like(potential)
    batch, cells, steps = potential.shape
    for step in range(steps):
        feedback = whole.golgi(rates[:, :, :step])[:, :, -1] if step else None
        for image in range(batch):
            for cell in range(cells):
                total = float(potential[image, cell, step])
                if feedback is not None:
                    for index, axon in enumerate(wiring[cell]):
                        inhibits = abs(float(weight[cell, index])) * float(feedback[image, axon])
                        total -= inhibits / len(wiring[cell])
                rates[image, cell, step] = max(0.0, total)
    return rates


@pytest.mark.parametrize("keywords", [{}, {"norm": "soma"}, {"summation": "sublinear"}], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_equals_a_loop_over_steps_and_cells(keywords: dict[str, Any], steps: int) -> None:
    whole, fibres = layer(**keywords), mossy(steps=steps)
    rates = whole(fibres)
    torch.testing.assert_close(rates, loop(whole, fibres), rtol=1e-12, atol=1e-12)
    assert rates.shape == (2, CELLS, steps)
    assert (rates > 0).any()
    if steps > 1:  # the loop has something to do
        assert not torch.allclose(rates, whole.granule(fibres))


def streamed(whole: GranularLayer, fibres: Tensor, parts: list[int]) -> Tensor:
    state, rates = None, []
    for stretch in fibres.split(parts, dim=2):
        rate, state = whole.stream(stretch, state)
        rates.append(rate)
    return torch.cat(rates, 2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 5))
def test_stretch_after_stretch_is_the_window(parts: list[int], seed: int) -> None:
    whole, fibres = layer(seed), mossy(steps=sum(parts))
    rates = streamed(whole, fibres, parts)
    torch.testing.assert_close(rates, whole(fibres), rtol=1e-12, atol=1e-12)


def test_waiting_periods_go_on_from_stretch_to_stretch_in_training() -> None:
    whole, fibres = layer(output={"mean_wait": 0.8}).train(), mossy(batch=20)
    results = []
    for parts in ([7], [2, 4, 1]):
        torch.manual_seed(1)
        results.append(streamed(whole, fibres, parts))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    assert ((results[0] == 0) & (whole.eval()(fibres) > 0)).any()


@pytest.mark.parametrize("training", [False, True])
def test_without_golgi_cells_it_is_the_granule_cells(training: bool) -> None:
    cells = granule(output={"mean_wait": 0.5})
    bare = GranularLayer(cells).train(training)
    assert (bare.golgi, bare.inhibition) == (None, None)
    fibres = mossy().float()
    torch.manual_seed(1)
    rates = bare(fibres)
    torch.manual_seed(1)
    assert torch.equal(rates, cells(fibres))
    _, state = bare.stream(fibres)
    assert (state.last_rate, state.golgi.dendrites) == (None, None)
    assert bare.closed_form(fibres.shape) == cells.closed_form(fibres.shape)


def test_each_granule_cell_is_inhibited_at_four_glomeruli_by_the_seed() -> None:
    first, again, other = (
        GranularLayer(granule(), golgi(), seed=seed).inhibition.wiring for seed in (0, 0, 1)
    )
    assert first.shape == (CELLS, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_golgi_cells_of_another_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="have 10 axons and there are 5 granule cells"):
        GranularLayer(Granule(FIBRES, 5), golgi())


def states_what_runs(whole: GranularLayer, batch: int, steps: int) -> tuple[Cost, ...]:
    counts = count_exact(whole, torch.zeros(batch, FIBRES, steps), device="meta")
    rows = whole.closed_form(torch.Size((batch, FIBRES, steps)))
    macs = sum((Counter(row.macs) for row in rows), Counter())
    assert macs == dict(counts.macs)
    assert sum(row.pointwise for row in rows) == sum(counts.flops.values())
    stages = [row.stage for row in rows]
    assert len(set(stages)) == len(stages)
    return rows


@pytest.mark.parametrize("feedback", [False, True], ids=["alone", "golgi"])
@pytest.mark.parametrize(("backend", "batch"), [("auto", 8), ("auto", 64), ("matmul", 2)])
def test_it_states_what_runs_where_granule_cells_alone_run_as_one_stage(
    backend: Any, batch: int, feedback: bool
) -> None:
    cells = granule(taps={"backend": backend})
    inhibitory = golgi(taps={"backend": backend}) if feedback else None
    whole = GranularLayer(cells, inhibitory).eval()
    assert fuses(cells, batch, 3, evaluation=True)
    rows = states_what_runs(whole, batch, 3)
    states_what_runs(whole, batch, 1)
    # With Golgi cells they do not: their firing goes step by step.
    alone = cells.closed_form(torch.Size((batch, FIBRES, 3)), streamed=feedback)
    assert rows[: len(alone)] == alone


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
@pytest.mark.parametrize("keywords", [{}, {"norm": "both", "threshold": 3.0}], ids=str)
def test_closed_form_is_what_the_counter_sees(steps: int, keywords: dict[str, Any]) -> None:
    whole = GranularLayer(granule(**keywords), golgi()).eval()
    rows = states_what_runs(whole, 2, steps)
    # Golgi cells first answer at the second step; each has a tree and 20 synapses however often.
    golgi_rows = {row.stage: row for row in rows if row.stage.startswith("golgi ")}
    assert bool(golgi_rows) is (steps > 1)
    if golgi_rows:
        assert golgi_rows["golgi dendrites"].neurons == GOLGI
        assert golgi_rows["golgi synapses"].synapses == GOLGI * 20
        assert golgi_rows["golgi inhibition"].synapses == CELLS * 4
        assert golgi_rows["golgi dendrites"].essay == 2 * (steps - 1) * GOLGI * 20 * 4 * 5 * 3
        assert golgi_rows["golgi dendrites"].direct == 2 * (steps - 1) * GOLGI * 4 * 5 * 3


def test_gradients_reach_all_cells_and_pass_gradcheck() -> None:
    whole, fibres = layer(), mossy(steps=4)
    whole(fibres).sum().backward()
    for key, parameter in whole.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    names = ["inhibition.weight", "golgi.synapses.weight", "granule.dendrites.weight"]

    def rates(fibres: Tensor, *values: Tensor) -> Tensor:
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(whole, changed, (fibres,))

    values = [whole.get_parameter(name).detach().clone().requires_grad_() for name in names]
    inputs = (fibres.requires_grad_(), *values)
    assert torch.autograd.gradcheck(rates, inputs, fast_mode=True)


# --- climbing fibres


def test_complex_spikes_follow_the_formula() -> None:
    fibres = ClimbingFibres(num_classes=4, purkinje_cells=7, resting_rate=0.8, gain=1.5)
    logits, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    rate = fibres(logits, labels)
    assert rate.shape == (5, 7)
    for image in range(5):
        odds = [float(value.exp()) for value in logits[image]]
        for cell in range(7):
            kind = cell % 4  # classes are dealt out in turn
            error = float(kind == labels[image]) - odds[kind] / sum(odds)
            assert float(rate[image, cell]) == pytest.approx(max(0.0, 0.8 + 1.5 * error))


def test_climbing_fibres_refuse_bad_sizes_rates_and_logits() -> None:
    for arguments, message in (
        ((0, 4), "num_classes=0; expected an integer"),
        ((3, 4, -1.0), "resting_rate=-1.0; expected a finite number of at least 0"),
        ((3, 4, 1.0, -0.5), "gain=-0.5; expected a finite number of at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ClimbingFibres(*arguments)
    for shape in ((5, 4), (4, 3)):
        with pytest.raises(ValueError, match=r"logits have .*; expected \(5 labels, 3 classes\)"):
            ClimbingFibres(3, 4)(torch.zeros(shape), torch.zeros(5, dtype=torch.long))


def test_a_cerebellums_complex_spikes_follow_an_image_and_cost_it_nothing() -> None:
    cells = {"purkinje": {"cells": 8}, "nuclei": {"cells": 5}}
    model = create_model("cerebellum_tiny", image_shape=(1, 4, 4), num_classes=3, **cells)
    labels = torch.tensor([0, 1, 2, 0, 1])
    ran: list[nn.Module] = []
    model.climbing_fibres.register_forward_hook(lambda module, args, rate: ran.append(module))
    logits = model(torch.rand(5, 1, 4, 4))
    assert ran == []
    assert model.climbing_fibres.closed_form(logits.shape, labels.shape) == ()
    rate = model.complex_spikes(logits, labels)
    assert rate.shape == (5, 8)
    assert torch.equal(rate, ClimbingFibres(3, 8)(logits, labels))
    assert (rate[0, [0, 3, 6]] >= 1).all()  # its own class can only be missed
    assert (rate[0, [1, 2, 4, 5, 7]] <= 1).all()  # another can only be claimed
    rate.sum().backward()  # an error signal of the logits
    assert model.classifier.weight.grad is not None
