"""Hooks, caches, autocast, inference mode and threads, where several stages run as one."""

import copy
import threading
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuroconv.kernels.cache import FilterCache
from neuroconv.neurons import Granule, GranuleConv2d
from neuroconv.neurons.stages import merge

AXONS, CELLS = 30, 40


def cells(**keywords: Any) -> Granule:
    torch.manual_seed(0)
    return Granule(
        AXONS, CELLS, **merge(keywords, output={"mean_wait": 0.0}, taps={"backend": "matmul"})
    )


def activity(batch: int = 3, **keywords: Any) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(batch, AXONS, 5, **keywords)


def fresh(population: nn.Module, x: Tensor) -> Tensor:
    """What a population gives that keeps nothing."""
    return copy.deepcopy(population)(x)


POPULATION_STAGES = [
    "synapses", "threshold_norm", "unit_dropout", "dendrites", "transmitters", "spike",
    "dendritic_rate", "summation", "soma", "firing", "output",
]  # fmt: skip
IMAGE_STAGES = [
    "threshold_norm", "dendritic_norms.0", "spike", "soma", "soma_norm", "firing", "output",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["forward", "full_backward", "full_backward_pre", "own"])
@pytest.mark.parametrize(
    ("build", "names", "shape"),
    [
        (lambda: cells(), POPULATION_STAGES, (3, AXONS, 5)),
        (lambda: GranuleConv2d(2, 3, time_steps=2, norm="both"), IMAGE_STAGES, (2, 2, 2, 5, 6)),
    ],
    ids=["population", "image"],
)
def test_hooks_and_forwards_of_every_stage_are_met(
    build: Any, names: Any, shape: Any, kind: str
) -> None:
    neurons, x = build(), torch.rand(shape, requires_grad=True)
    for name in names:
        plain = fresh(neurons, x)
        calls: list[str] = []
        stage: Any = neurons.get_submodule(name)
        note = partial(lambda name, calls, *_: calls.append(name), name, calls)
        if kind == "own":
            whole = stage.forward
            stage.forward = lambda *x, whole=whole, note=note: note() or whole(*x)
        else:
            handle = getattr(stage, f"register_{kind}_hook")(note)
        rate = neurons(x)
        torch.testing.assert_close(rate, plain)
        rate.sum().backward()
        if kind == "own":
            del stage.forward
        else:
            handle.remove()
        # An image layer's spike acts on one dendrite after another.
        columns = len(neurons.dendritic_norms) if isinstance(neurons, GranuleConv2d) else 1
        assert calls == [name] * (columns if name == "spike" else 1)


def test_what_evaluation_keeps_is_made_without_autocast() -> None:
    population = cells().eval()
    x = activity()
    with torch.no_grad():
        expected = fresh(population, x)
        with torch.autocast("cpu", torch.bfloat16):
            population(x)
        assert torch.equal(population(x), expected)


def test_what_evaluation_keeps_follows_signs_and_wiring() -> None:
    population = cells(synapse={"excitatory": 0.5}).eval()
    other = cells(synapse={"excitatory": 0.5, "seed": 1}, wiring={"seed": 1}).eval()
    x = activity()
    with torch.no_grad():
        before = population(x)
        signs = population.synapses.signs
        turned = functional_call(population, {"synapses.signs": -signs}, (x,))
        signs.neg_()
        assert torch.equal(population(x), fresh(population, x))
        assert torch.equal(turned, population(x))
        assert not torch.equal(before, turned)
        other(x)
        other.load_state_dict(population.state_dict())
        assert torch.equal(other(x), population(x))


def test_a_population_of_inference_mode_is_like_another() -> None:
    x = activity()
    with torch.inference_mode():
        population = cells().eval()
        assert torch.equal(population(x), fresh(population, x))
    with torch.no_grad():
        assert torch.equal(cells().eval()(x), population(x))


def test_autocast_leaves_double_precision_alone() -> None:
    population, layer = cells().double(), GranuleConv2d(1, 2, padding="same").double()
    x, frames = activity(dtype=torch.float64), torch.rand(2, 1, 5, 6, 7, dtype=torch.float64)
    expected, maps = population(x), layer(frames)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(population(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer(frames), maps, rtol=0, atol=1e-12)


def test_a_cache_that_threads_share_gives_each_its_own() -> None:
    """Replicas of a module hold the same cache, and may hold other weights."""
    cache, wrong = FilterCache(), []

    def read(value: float) -> None:
        weight = torch.full((4,), value)
        with torch.no_grad():
            for _ in range(2_000):
                doubled = cache.get((weight,), "doubled", 4, lambda: weight * 2)
                if float(doubled[0]) != 2 * value:
                    wrong.append(value)

    threads = [threading.Thread(target=read, args=(float(value),)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
