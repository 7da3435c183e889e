"""Neurons compiled, and in half precision: torch.compile, bfloat16 autocast."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.layers import PoissonSpikes, ReleaseOrWait
from neuroconv.neurons import Granule, GranuleConv2d, Population, Purkinje
from neuroconv.neurons.stages import merge

SMALL: dict[str, Any] = {"tree": {"sheet": (4, 3), "filter": (2, 3, 3)}, "soma": {"time_steps": 2}}
RICH: dict[str, Any] = {
    **SMALL, "threshold": 1.5, "tree": {**SMALL["tree"], "synapses": 11}, "norm": "both",
    "synapse": {"excitatory": 0.5, "factorized": True, "transmitters": 2}, "summation": "sigmoidal",
    "taps": {"equalized_lr": True},
}  # fmt: skip
STEPWISE: dict[str, Any] = {
    "norm": "both", "norm_over": "step", "threshold": 1.5, "rate": {"law": "sigmoidal"},
    "output": {"mean_wait": 0.5, "clock": "activity"},
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "time_steps": 3,
    "norm": "both",
    "threshold": 1.0,
    "summation": "sublinear",
}
SLOW = pytest.mark.slow
SPIKE: dict[str, Any] = {
    "strength": 0.9, "threshold": 0.1, "temperature": 0.3, "window": 3, "learn_strength": True,
    "learn_threshold": True,
}  # fmt: skip


class Stream(nn.Module):
    """A step, then one more from the state that the first returned."""

    def __init__(self, neurons: Any) -> None:
        super().__init__()
        self.neurons = neurons

    def forward(self, x: Tensor) -> Tensor:
        first, state = self.neurons.stream(x[:, :, :1])
        second, _ = self.neurons.stream(x[:, :, 1:], state)
        return torch.cat([first, second], 2)


def compiled_equals_eager(module: nn.Module, x: Tensor) -> None:
    """Outputs and gradients, draws included."""
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for run in (module, compiled):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(1)
        rate = run(leaf)
        gradients = torch.autograd.grad(rate.square().sum(), (leaf, *module.parameters()))
        results.append((rate, *gradients))
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    assert results[0][0].any()


@SLOW
def test_compiled_populations(population: Population) -> None:
    population.requires_grad_()
    activity = torch.rand(2, population.in_features, 4, dtype=torch.float64)
    compiled_equals_eager(population, activity)


@SLOW
def test_compiled_image_layers(image_layer: GranuleConv2d) -> None:
    frames = torch.rand(2, image_layer.in_channels, 3, 4, 6, dtype=torch.float64)
    compiled_equals_eager(image_layer, frames)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"norm": "dendrites", "output": {"mean_wait": 0.5}}, marks=SLOW),
        pytest.param({"taps": {"backend": "fft"}, "output": ReleaseOrWait()}, marks=SLOW),
        pytest.param(STEPWISE, marks=SLOW),
        RICH | {"unit_dropout": {"mean_wait": 0.5}, "spike": SPIKE},
    ],
    ids=["norm", "release_or_wait", "stepwise", "rich"],
)
def test_compiled_neurons_with_their_draws(options: Any) -> None:
    cells = Purkinje(6, 2, **merge(SMALL, options)).double()
    nn.init.constant_(cells.bias if cells.bias is not None else cells.soma_norm.bias, 0.5)
    compiled_equals_eager(cells, torch.rand(3, 6, 4, dtype=torch.float64))


@SLOW
def test_a_compiled_stream() -> None:
    options = merge(SMALL, summation="supralinear", output=PoissonSpikes())
    cells = Purkinje(6, 2, **options).double().eval()
    nn.init.constant_(cells.get_parameter("bias"), 0.5)
    activity = torch.rand(3, 6, 4, dtype=torch.float64)
    compiled_equals_eager(Stream(cells), activity)
    torch.testing.assert_close(Stream(cells)(activity), cells(activity), rtol=0, atol=1e-12)


@SLOW
def test_a_compiled_image_layer_with_its_draws() -> None:
    options = merge(IMAGE, spike=SPIKE, output={"mean_wait": 0.5})
    layer = GranuleConv2d(3, 4, (2, 3), **options).double()
    compiled_equals_eager(layer, torch.rand(2, 3, 4, 5, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: Granule(60, 30), (4, 60, 5)),
        (lambda: Purkinje(60, 10, **RICH, spike=SPIKE), (4, 60, 5)),
        (lambda: Purkinje(60, 10, **SMALL, wiring="all_to_all"), (4, 60, 5)),
        (lambda: GranuleConv2d(3, 8, 3, **IMAGE, spike=SPIKE), (2, 3, 5, 8, 8)),
    ],
    ids=["granule", "rich", "dense", "image"],
)
def test_bfloat16_autocast_is_near_float32(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    module = build().eval()
    x = torch.rand(shape)
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = module(x)
    assert near.dtype == torch.bfloat16
    assert near.isfinite().all()
    assert exact.abs().max() > 1e-3
    assert (near.float() - exact).abs().max() < 0.05 * exact.abs().max()
    # And it learns.
    module.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(x).float().square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
