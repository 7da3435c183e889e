"""Every neuron under torch's transforms: where kernels cannot follow, their references do.

A neuron with its kernels is held to its definition, which `kernels_off()` runs stage by stage, and
to the loop that a transform stands for. All in float64, in evaluation and, where samples are
independent, in training.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from neuroconv.kernels.native import native_kernels, state
from neuroconv.kernels.operator import kernels_off, plain_operators
from neuroconv.neurons import Granule, GranuleConv2d, Population
from neuroconv.zoo import create_model
from tests.neurons.conftest import AXONS, IMAGE_LAYERS, POPULATIONS

NEURONS = {**{f"population {k}": v for k, v in POPULATIONS.items()},
           **{f"image layer {k}": v for k, v in IMAGE_LAYERS.items()}}  # fmt: skip
KERNELS = pytest.mark.skipif(state() != "on", reason=f"no kernels: {state()}")


def all_but_slow(*quick: str) -> list[Any]:
    """The names of all neurons, of which only these run in the quick suite."""
    slow = pytest.mark.slow
    return [name if name in quick else pytest.param(name, marks=slow) for name in NEURONS]


@pytest.fixture(params=NEURONS)
def neuron(request: pytest.FixtureRequest) -> nn.Module:
    return NEURONS[request.param]()


def inputs(neuron: Any, batch: int = 3) -> Tensor:
    if isinstance(neuron, Population):
        return torch.rand(batch, AXONS, 4, dtype=torch.float64)
    return torch.randn(batch, neuron.in_channels, 3, 6, 7, dtype=torch.float64)


def loss(neuron: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The squared rates of one sample, as a function of the parameters."""
    buffers = dict(neuron.named_buffers())

    def squared_rates(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        rate = functional_call(neuron, (parameters, buffers), (sample.unsqueeze(0),))
        return rate.square().sum()

    return squared_rates


def near(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def trained(neuron: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in neuron.named_parameters() if p.requires_grad}


def test_gradients_of_each_sample(neuron: nn.Module) -> None:
    samples, parameters = inputs(neuron), dict(neuron.named_parameters())
    gradients = vmap(grad(loss(neuron)), (None, 0))(parameters, samples)
    for index, sample in enumerate(samples):
        neuron.zero_grad()
        loss(neuron)(parameters, sample).backward()
        for name, parameter in trained(neuron).items():
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            near(gradients[name][index], expected)


def test_forward_mode(neuron: nn.Module) -> None:
    """The directional derivative is the reverse mode's, and the definition's."""
    samples = inputs(neuron)
    direction = torch.randn_like(samples)
    rate, tangent = jvp(neuron, (samples,), (direction,))
    with kernels_off():
        near((rate, tangent), jvp(neuron, (samples,), (direction,)))
    leaf, push = samples.clone().requires_grad_(), torch.randn_like(rate)
    (back,) = torch.autograd.grad(neuron(leaf), leaf, push)
    if not any(getattr(part, "signal", "max") == "essay" for part in neuron.modules()):
        near((tangent * push).sum(), (back * direction).sum())


def test_double_backward(neuron: nn.Module) -> None:
    """A gradient penalty reaches the input and every parameter, as through the definition."""
    samples = inputs(neuron)

    def penalty() -> list[Tensor]:
        leaf = samples.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(neuron(leaf).square().sum(), leaf, create_graph=True)
        leaves = [leaf, *trained(neuron).values()]
        total = gradient.square().sum()
        return list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))

    actual = penalty()
    with kernels_off():
        near(actual, penalty())
    assert any(part.abs().sum() > 0 for part in actual[1:])


def test_kernels_are_the_definition(neuron: nn.Module) -> None:
    """The rates and their gradients, also in training where a norm takes batch statistics."""
    samples = inputs(neuron)
    draws = any(getattr(part, "mean_wait", 0) for part in neuron.modules())

    def step() -> list[Tensor]:
        leaf = samples.clone().requires_grad_()
        torch.manual_seed(3)
        rate = neuron(leaf)
        push = torch.linspace(-1, 1, rate.numel(), dtype=rate.dtype).view(rate.shape)
        leaves = [leaf, *trained(neuron).values()]
        back = torch.autograd.grad(rate, leaves, push, allow_unused=True, materialize_grads=True)
        return [rate, *back]

    for training in (False, True)[: 1 if draws else 2]:
        neuron.train(training)
        actual = step()
        with kernels_off():
            near(actual, step())


# torch 2.11 guards on the smaller of the strides B and 6 B in each view that joins axes, and then
# refuses an open batch.
@pytest.mark.xfail(torch.__version__ < "2.14", reason="torch's guards on strides", strict=False)
@pytest.mark.parametrize("name", all_but_slow(
    "population plain", "population norm_both", "population fft", "image layer norm",
))  # fmt: skip
def test_exported_with_an_open_batch(name: str) -> None:
    neuron: Any = NEURONS[name]()
    samples = inputs(neuron)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(neuron, (samples,), dynamic_shapes=({0: batch},)).module()
    for size in (2, 5, 40):
        samples = inputs(neuron, size)
        near(exported(samples), neuron(samples))


@KERNELS
@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("population plain", "tree_sum"),
        ("image layer plain", "patch_sum"),
        ("image layer claw", "claw_sum"),
    ],
)
def test_compiled_it_runs_the_kernels(name: str, operator: str) -> None:
    neuron: Any = NEURONS[name]()
    samples = inputs(neuron)
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    compiled = torch.compile(neuron, backend=backend, fullgraph=True)
    near(compiled(samples), neuron(samples))
    assert any(operator in target for target in targets)


@pytest.mark.skipif(
    os.environ.get("NEUROCONV_NATIVE") == "0" or not any(map(shutil.which, ("c++", "g++"))),
    reason="no C++ compiler, or NEUROCONV_NATIVE=0",
)
def test_kernels_are_on_where_there_is_a_compiler() -> None:
    assert state() == "on"


# --- training


@pytest.mark.parametrize("norm", ["dendrites", "soma", "both"])
def test_batch_statistics_are_refused_with_the_remedy(norm: Any) -> None:
    for neuron, shape in ((Granule(6, 4, norm=norm), (3, 6, 5)),
                          (GranuleConv2d(2, 3, norm=norm), (3, 2, 5, 6, 6))):  # fmt: skip
        parameters = dict(neuron.train().named_parameters())
        with pytest.raises(RuntimeError, match=r"batch statistics.*call eval\(\)"):
            vmap(grad(loss(neuron)), (None, 0))(parameters, torch.rand(shape))
        assert all(int(b) == 0 for n, b in neuron.named_buffers() if n.endswith("tracked"))
        torch.func.replace_all_batch_norm_modules_(neuron)
        per_sample = vmap(grad(loss(neuron)), (None, 0), randomness="different")
        per_sample(parameters, torch.rand(shape))


def test_a_threshold_refuses_them_too() -> None:
    cells = Granule(6, 4, threshold=1.0).train()
    with pytest.raises(RuntimeError, match=r"threshold_norm\.norm takes batch statistics"):
        vmap(cells)(torch.rand(3, 2, 6, 5))


def test_training_without_batch_statistics() -> None:
    cells = Granule(6, 4, output={"kind": "poisson_dropout", "mean_wait": 0.0}).double().train()
    samples, parameters = torch.rand(3, 6, 5, dtype=torch.float64), dict(cells.named_parameters())
    gradients = vmap(grad(loss(cells)), (None, 0))(parameters, samples)
    cells(samples).square().sum().backward()
    for name, parameter in cells.named_parameters():
        near(gradients[name].sum(0), parameter.grad)


def test_randomness_follows_vmap() -> None:
    cells = Granule(6, 400, output={"kind": "poisson_dropout", "mean_wait": 0.5}).train()
    samples = torch.rand(1, 6, 5).expand(3, 6, 5)

    def rates(randomness: str) -> Tensor:
        return vmap(lambda x: cells(x.unsqueeze(0))[0], randomness=randomness)(samples)

    same, different = rates("same"), rates("different")
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="randomness"):
        rates("error")


# --- whole networks, and operators alone


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("granule_convnet", {"image_shape": (1, 12, 12)}),
        ("cerebellum_tiny", {}),
        ("resnet18_granule", {"image_shape": (1, 32, 32), "width": 2, "num_classes": 3}),
    ],
)
def test_networks_of_the_zoo(name: str, keywords: dict[str, Any]) -> None:
    network = create_model(name, **keywords).double().eval()
    shape = keywords.get("image_shape", (1, 8, 8))
    samples, parameters = torch.rand(2, *shape).double(), dict(network.named_parameters())
    gradients = vmap(grad(loss(network)), (None, 0))(parameters, samples)
    network(samples).square().sum().backward()
    for key, parameter in network.named_parameters():
        expected = 0 * parameter if parameter.grad is None else parameter.grad
        near(gradients[key].sum(0), expected)
    direction = torch.randn_like(samples)
    tangents = jvp(network, (samples,), (direction,))
    with kernels_off():
        near(tangents, jvp(network, (samples,), (direction,)))


def calls(run: Callable[[], Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The operators of this package that a function calls, with their arguments."""

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.namespace == "neuroconv":
                recorded.append((func, args))
            return func(*args, **(kwargs or {}))

    recorded: list[tuple[Any, tuple[Any, ...]]] = []
    with Recorder():
        run()
    return iter(recorded)


# With this many inputs a norm in training keeps the potentials for its backward pass.
WIDE = {
    f"wide {norm}": lambda norm=norm: GranuleConv2d(13, 8, norm=norm, time_steps=3).double()
    for norm in ("none", "both")
}


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("name", [*WIDE, *all_but_slow(
    "population plain", "population per_dendrite", "population fft", "population valid",
    "image layer plain", "image layer norm", "image layer claw",
)])  # fmt: skip
def test_operators_keep_their_promises(name: str, native: bool) -> None:
    """Fake results have the shapes, strides and dtypes of the real ones, nothing is written to."""
    neuron: Any = (NEURONS | WIDE)[name]().train()
    leaf = inputs(neuron).requires_grad_()
    with native_kernels(native):
        last_calls = dict(calls(lambda: neuron(leaf).sum().backward()))
        for func, args in last_calls.items():
            plain = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), args)
            torch.library.opcheck(func, plain, test_utils=("test_schema", "test_faketensor"))


@KERNELS
@pytest.mark.parametrize("name", ["population plain", "image layer claw"])
def test_the_plain_implementation_is_the_kernel(name: str) -> None:
    neuron = NEURONS[name]()
    with torch.no_grad():
        for func, args in calls(lambda: neuron(inputs(neuron))):
            plain = plain_operators(func)
            near(func(*args)[0], plain(*args)[0])
    with native_kernels(False):
        sample = inputs(neuron)
        off = neuron(sample)
    near(neuron(sample), off)


def test_torchs_counter_sees_the_multiply_adds() -> None:
    cells = Granule(6, 64)
    with FlopCounterMode(display=False) as counter:
        cells(torch.rand(32, 6, 5))
    assert counter.get_total_flops() == 2 * sum(
        sum(cost.macs.values()) for cost in cells.closed_form(torch.Size((32, 6, 5)))
    )
