"""Dendrites as products of dense matrices: the numbers and gradients of their stages."""

from typing import Any

import pytest
import torch

from neuroconv.flops import profile
from neuroconv.kernels import population as kernels
from neuroconv.kernels.operator import kernels_off
from neuroconv.kernels.whole_dendrites import dense_current
from neuroconv.neurons import Population
from neuroconv.zoo import create_model
from tests.learning.test_learning_population import CASES, population

DENSE = [case for case in CASES if case != "a spike at the only site"]


def gradients(cells: Population, activity: torch.Tensor) -> list[torch.Tensor]:
    """Returns the rates, and the gradients of activity and parameters."""
    leaf = activity.clone().requires_grad_()
    rates = cells(leaf)
    weights = torch.linspace(-1, 1, rates.numel(), dtype=rates.dtype).view_as(rates)
    learned = [p for p in cells.parameters() if p.requires_grad]
    return [rates, *torch.autograd.grad((rates * weights).sum(), [leaf, *learned])]


@pytest.fixture
def ran_dense(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets no other kernel take these trees, and lists the activity that met dense matrices."""
    seen = []
    monkeypatch.setattr(kernels, "fuses", lambda *_, **__: False)
    monkeypatch.setattr(
        kernels, "dense_current", lambda cells, x: (seen.append(x), dense_current(cells, x))[1]
    )
    return seen


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("case", DENSE)
def test_it_is_the_stages(case: str, steps: int, ran_dense: list[Any]) -> None:
    cells, activity = population(**CASES[case]), torch.randn(40, 9, steps).double()
    with kernels_off():
        expected = gradients(cells, activity)
    assert not ran_dense
    torch.testing.assert_close(gradients(cells, activity), expected, rtol=1e-12, atol=1e-12)
    assert len(ran_dense) == 1


def test_gradients_of_gradients(ran_dense: list[Any]) -> None:
    cells, activity = population(**CASES["taps in time"]), torch.randn(8, 9, 2).double()
    run = torch.func.functional_call
    names, values = zip(*cells.named_parameters(), strict=True)

    def rates(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = run(cells, dict(zip(names, parameters, strict=True)), (x,))
        return result

    assert torch.autograd.gradcheck(rates, (activity.requires_grad_(), *values))
    assert torch.autograd.gradgradcheck(rates, (activity, *values))
    assert ran_dense


@pytest.mark.parametrize(("keywords", "batch"), [
    ({}, 7),  # rows of so few samples are copied faster
    ({"checkpoint": True}, 40),  # matrices are memory, too
    ({"tree": {"sheet": (3, 4), "filter": (2, 4, 1), "mode": "per_dendrite"}}, 40),
    ({"taps": {"backend": "direct"}}, 40),
    ({"norm": "dendrites"}, 40),
])  # fmt: skip
def test_where_the_stages_run(keywords: dict[str, Any], batch: int, ran_dense: list[Any]) -> None:
    population(**keywords)(torch.randn(batch, 9, 2).double())
    assert not ran_dense


def test_no_zero_is_counted() -> None:
    model = create_model("purkinje_classifier", purkinje={"tree": {"sheet": (100, 1000)}})
    counted = profile(model, torch.rand(8, 1, 28, 28))
    assert counted.agree
    assert counted.mac_per_sample < 3 * 10 * 100 * 1000  # dense: 10 * 784 * 1000
