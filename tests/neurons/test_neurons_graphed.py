"""CUDA graphs of small populations, and what refuses to become one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.neurons import Granule, Purkinje
from neuroconv.neurons.graphed import graphed
from neuroconv.neurons.population import Population
from neuroconv.neurons.stages import merge

SMALL: dict[str, Any] = {"tree": {"sheet": (4, 6), "filter": (3, 6, 5)}}


def test_on_the_cpu_it_is_the_module_itself_if_it_is_in_evaluation_there() -> None:
    cells = Granule(10, 5).eval()
    assert graphed(cells, torch.rand(2, 10, 5)) is cells
    with pytest.raises(ValueError, match=r"Granule is in training mode.*call module.eval\(\)"):
        graphed(Granule(10, 5), torch.rand(2, 10, 5))
    with pytest.raises(ValueError, match=r"the example is on meta and the module on cpu.*'meta'"):
        graphed(Granule(10, 5).eval(), torch.rand(2, 10, 5, device="meta"))


def populations() -> list[Population]:
    return [
        Granule(20, 40, taps={"backend": "matmul"}),
        Granule(20, 8, taps={"backend": "direct"}),
        Purkinje(20, 6, **merge(SMALL, norm="both", taps={"backend": "fft"})),
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("index", range(3))
def test_a_graph_equals_the_module(index: int, half: bool) -> None:
    cells = populations()[index].cuda().eval()
    inputs = torch.rand(4, 3, 20, 5, device="cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=half), torch.no_grad():
        run = graphed(cells, inputs[0])
        results = [run(activity) for activity in inputs]
        expected = [cells(activity) for activity in inputs]
    for result, other in zip(results, expected, strict=True):
        assert not result.requires_grad
        torch.testing.assert_close(result, other, rtol=1e-6, atol=1e-6)
    assert not torch.equal(results[0], results[1])


@pytest.mark.gpu
def test_it_is_of_the_weights_as_they_were() -> None:
    cells = Granule(20, 40, taps={"backend": "matmul"}).cuda().eval()
    inputs = torch.rand(3, 20, 5, device="cuda")
    run = graphed(cells, inputs)
    before = run(inputs)
    with torch.no_grad():
        cells.dendrites.weight.neg_()
        after = cells.train().eval()(inputs)
    assert torch.equal(run(inputs), before)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(graphed(cells, inputs)(inputs), after)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda: torch.rand(2, 20, 5, device="cuda"), "shape"),
        (lambda: torch.rand(3, 20, 5), "device"),
        (lambda: torch.rand(3, 20, 5, device="cuda").double(), "dtype"),
    ],
)
def test_an_input_unlike_the_example_is_refused(inputs: Any, message: str) -> None:
    run = graphed(Granule(20, 8).cuda().eval(), torch.rand(3, 20, 5, device="cuda"))
    with pytest.raises(ValueError, match=f"the input's {message} is .*record another graph"):
        run(inputs())


@pytest.mark.gpu
def test_a_module_of_several_results_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x

    with pytest.raises(TypeError, match="Two returned tuple; expected one tensor"):
        graphed(Two().eval(), torch.rand(3, device="cuda"))
