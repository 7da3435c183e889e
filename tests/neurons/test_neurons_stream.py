"""Time in stretches: a window piece by piece is the window at once, and state is explicit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv.neurons import Granule, GranuleConv2d, MixedPopulation, NeuronState, Purkinje
from neuroconv.neurons import Population as Cells
from neuroconv.neurons.stages import merge
from tests.neurons.conftest import AXONS, IMAGE_LAYERS, POPULATIONS

STEPS = 7
partitions = st.sets(st.integers(1, STEPS - 1)).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), STEPS], strict=True)]
)
for_each_partition = settings(max_examples=6)  # the fixtures build neurons that none changes
SMALL: dict[str, Any] = {"tree": {"sheet": (4, 3), "filter": (2, 3, 3)}, "soma": {"time_steps": 3}}


def streamed(module: Any, x: Tensor, stretches: list[int]) -> tuple[Tensor, Any]:
    """The window in stretches, each from the state that the one before it returned."""
    outputs, state = [], None
    for stretch in x.split(stretches, 2):
        rate, state = module.stream(stretch) if state is None else module.stream(stretch, state)
        outputs.append(rate)
    return torch.cat(outputs, 2), state


def same_state(state: Any, expected: Any) -> None:
    """Equal up to the last digits of float64, part by part."""
    assert type(state) is type(expected)
    if isinstance(state, Tensor):
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-12)
    elif isinstance(state, tuple):
        for a, b in zip(state, expected, strict=True):
            same_state(a, b)


def check_partition(module: Any, shape: tuple[int, ...], stretches: list[int]) -> None:
    x = torch.rand(shape, dtype=torch.float64)
    whole, end = module.stream(x)
    # A window from rest may run as one stage, whose sums run in another order.
    torch.testing.assert_close(module(x), whole, rtol=0, atol=1e-12)
    rate, state = streamed(module, x, stretches)
    torch.testing.assert_close(rate, whole, rtol=0, atol=1e-12)
    same_state(state, end)


@for_each_partition
@given(stretches=partitions)
@example(stretches=[1] * STEPS)
def test_any_partition_of_a_populations_window(population: Cells, stretches: list[int]) -> None:
    check_partition(population, (2, population.in_features, STEPS), stretches)


@for_each_partition
@given(stretches=partitions)
@example(stretches=[1] * STEPS)
def test_any_partition_of_an_image_layers_window(
    image_layer: GranuleConv2d, stretches: list[int]
) -> None:
    check_partition(image_layer, (2, image_layer.in_channels, STEPS, 4, 6), stretches)


def test_potential_and_fire_are_a_stream(population: Cells) -> None:
    activity = torch.rand(2, population.in_features, 4, dtype=torch.float64)
    _, state = population.stream(activity)
    potential, between = population.somatic_potential(activity, state)
    assert between.output is state.output  # nothing has fired yet
    rate, end = population.fire(potential, between)
    expected, wanted_end = population.stream(activity, state)
    assert torch.equal(rate, expected)
    same_state(end, wanted_end)


def test_a_mixed_population_in_stretches() -> None:
    mixed = MixedPopulation(
        Granule(8, 3, tree={"filter": (3, 4, 2)}), Purkinje(8, 2, **SMALL, norm="both")
    )
    mixed = mixed.double().eval()
    activity = torch.rand(2, 8, STEPS, dtype=torch.float64)
    whole = mixed(activity)
    assert whole.shape == (2, 5, STEPS)
    assert torch.equal(whole, torch.cat([module(activity) for module in mixed.populations], 1))
    for stretches in ([1] * STEPS, [3, 4], [5, 1, 1]):
        rate, state = streamed(mixed, activity, stretches)
        torch.testing.assert_close(rate, whole, rtol=0, atol=1e-12)
        assert len(state) == 2
    rows = mixed.closed_form(torch.Size((2, 8, STEPS)))
    parts = [module.closed_form(torch.Size((2, 8, STEPS))) for module in mixed.populations]
    assert rows == (*parts[0], *parts[1])


def test_populations_that_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"in_features=\[8, 9\]; expected one or more populations"):
        MixedPopulation(Granule(8, 3), Granule(9, 3))
    with pytest.raises(ValueError, match=r"in_features=\[\]; expected one or more populations"):
        MixedPopulation()


# --- in training: norms over the window read the future, norms over steps do not

AWAKE: dict[str, Any] = {"output": {"mean_wait": 0.0}}
NORMALISED: dict[str, Callable[[str], Any]] = {
    "dendrites": lambda over: Purkinje(8, 2, **SMALL, **AWAKE, norm="dendrites", norm_over=over),
    "soma": lambda over: Granule(8, 4, **AWAKE, norm="soma", norm_over=over),
    "threshold": lambda over: Purkinje(8, 2, **SMALL, **AWAKE, threshold=1.0, norm_over=over),
    "checkpoint": lambda over: Purkinje(
        8, 2, **SMALL, **AWAKE, norm="both", norm_over=over, checkpoint=True
    ),
    "image": lambda over: GranuleConv2d(
        8, 3, (2, 3), time_steps=2, norm="both", threshold=1.0, norm_over=over
    ),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_later_steps_change_earlier_ones_by_norms_over_the_window_alone(name: str) -> None:
    for over in ("window", "step"):
        neurons = NORMALISED[name](over).double().train()
        frames = (5, 6) if name == "image" else ()
        x = torch.rand(4, 8, STEPS, *frames, dtype=torch.float64)
        later = x.clone()
        later[:, :, 4] += torch.rand(4, 8, *frames, dtype=torch.float64)
        before, after = neurons(x), neurons(later)
        assert not torch.equal(before[:, :, 4:], after[:, :, 4:])
        assert torch.equal(before[:, :, :4], after[:, :, :4]) == (over == "step")


@pytest.mark.parametrize("name", NORMALISED)
def test_stretches_in_training_are_the_window_by_norms_over_steps(name: str) -> None:
    neurons = NORMALISED[name]("step").double().train()
    frames = (5, 6) if name == "image" else ()
    x = torch.rand(4, 8, STEPS, *frames, dtype=torch.float64)
    whole = neurons(x)
    assert whole.any()
    rate, _ = streamed(neurons, x, [2, 4, 1])
    torch.testing.assert_close(rate, whole, rtol=0, atol=1e-12)


# --- state is an argument and a result, and nothing else


def traces(module: nn.Module) -> list[Any]:
    """All that a module holds: its tensors' values, and every attribute of every submodule."""
    tensors = [value.clone() for value in (*module.parameters(), *module.buffers())]
    plain = [
        copy.copy({name: value for name, value in vars(module).items() if not name.startswith("_")})
        for module in module.modules()
    ]
    return [tensors, plain]


@pytest.mark.parametrize("build", [*POPULATIONS.values(), *IMAGE_LAYERS.values()])
@torch.no_grad()
def test_state_is_explicit(build: Callable[[], Any]) -> None:
    module = build()
    axes = (module.in_channels, 4, 4, 6) if isinstance(module, GranuleConv2d) else (AXONS, 4)
    x, before = torch.rand(2, *axes, dtype=torch.float64), traces(module)
    _, state = module.stream(x)
    original = copy.deepcopy(state)
    first, after_first = module.stream(x, state)
    again, after_again = module.stream(x, state)
    assert torch.equal(first, again)
    same_state(after_first, after_again)
    same_state(state, original)  # the argument is left alone
    tensors, plain = traces(module)
    assert all(torch.equal(a, b) for a, b in zip(before[0], tensors, strict=True))
    assert before[1] == plain


@pytest.mark.parametrize("build", [POPULATIONS["plain"], IMAGE_LAYERS["plain"]])
def test_a_state_of_another_batch(build: Callable[[], Any]) -> None:
    cells = build()
    axes = (AXONS, 4) if isinstance(cells, Cells) else (cells.in_channels, 4, 5, 6)
    state = cells.stream(torch.rand(2, *axes, dtype=torch.float64))[1]
    message = r"the state has shape \(2, .* the stretch after it \(1, .*or none to start from rest"
    with pytest.raises(ValueError, match=message):
        cells.stream(torch.rand(1, *axes, dtype=torch.float64), state)


def test_what_the_state_holds() -> None:
    cells = Purkinje(8, 2, **merge(SMALL, synapse={"transmitters": 2})).eval()
    _, state = cells.stream(torch.rand(3, 8, 1))
    assert isinstance(state, NeuronState)
    assert state.dendrites.shape == (3, 4, 2, 4, 3)  # two steps of a filter of three
    assert state.soma.shape == (3, 2, 2)
    assert not state.dendrites[:, :, 0].any()  # before the window: at rest
    assert state.dendrites[:, :, 1].all()
    assert (state.output, state.unit_dropout) == (None, None)


# --- training: waiting periods run on from stretch to stretch


@pytest.mark.parametrize("scope", ["neuron", "unit"])
@pytest.mark.parametrize(
    "waits", [{"mode": "wait"}, {"mode": "redraw"}, {"mode": "independent"}, {"clock": "activity"}]
)
def test_waits_run_on_in_training(waits: dict[str, str], scope: Any) -> None:
    stage = "unit_dropout" if scope == "unit" else "output"
    dropout: dict[str, Any] = {stage: {"mean_wait": 1.0, **waits}}
    cells = Granule(8, 40, **dropout).double()
    nn.init.constant_(cells.get_parameter("bias"), 1.0)
    activity = torch.rand(3, 8, STEPS, dtype=torch.float64)
    rates = []
    for stretches in ([STEPS], [1] * STEPS, [2, 4, 1]):
        torch.manual_seed(5)
        rates.append(streamed(cells, activity, stretches)[0])
    torch.testing.assert_close(rates[1], rates[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(rates[2], rates[0], rtol=0, atol=1e-12)
    torch.manual_seed(5)
    # Step for step the same cells wait; what fires may be summed in another order.
    torch.testing.assert_close(cells(activity), rates[0], rtol=0, atol=1e-12)
    assert not torch.equal(cells(activity), rates[0])  # draws run on, state does not
    if scope == "neuron":
        assert 0.2 < (rates[0] == 0).double().mean() < 0.8


def test_waits_run_on_in_an_image_layer() -> None:
    layer = GranuleConv2d(2, 6, (2, 3), time_steps=2, output={"mean_wait": 1.0}).double()
    nn.init.constant_(layer.get_parameter("bias"), 1.0)
    frames = torch.rand(2, 2, STEPS, 5, 6, dtype=torch.float64)
    torch.manual_seed(5)
    whole = layer(frames)
    assert 0.2 < (whole == 0).double().mean() < 0.8
    for stretches in ([1] * STEPS, [2, 4, 1]):
        torch.manual_seed(5)
        rate, _ = streamed(layer, frames, stretches)
        torch.testing.assert_close(rate, whole, rtol=0, atol=1e-12)
