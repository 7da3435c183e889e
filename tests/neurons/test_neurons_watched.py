"""What stages that run as one owe to others: hooks, caches, autocast, inference mode, threads."""

import copy
import threading
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.population import fuses
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


def fresh(population: Granule, x: Tensor) -> Tensor:
    """What a population gives that keeps nothing."""
    return copy.deepcopy(population)(x)


@pytest.mark.parametrize("kind", ["forward", "full_backward", "full_backward_pre"])
def test_hooks_on_every_stage_of_a_population_are_met(kind: str) -> None:
    population = cells()
    names = ("synapses", "dendrites", "dendritic_rate", "summation", "soma", "firing", "output")
    assert fuses(population, 3, 5)
    for name in names:
        plain = fresh(population, activity())
        met = watch(population, [name], kind)
        rate = population(activity().requires_grad_())
        torch.testing.assert_close(rate, plain)
        rate.sum().backward()
        assert met == {name: 1}, name


@pytest.mark.parametrize("kind", ["forward", "full_backward", "full_backward_pre"])
def test_hooks_on_the_stages_of_an_image_layer_are_met(kind: str) -> None:
    torch.manual_seed(0)
    layer = GranuleConv2d(2, 3, padding="same", time_steps=2, norm="both")
    names = ("dendritic_norms.0", "soma", "soma_norm", "firing", "output")
    for name in names:
        met = watch(layer, [name], kind)
        layer(torch.rand(2, 2, 2, 5, 6, requires_grad=True)).sum().backward()
        assert met == {name: 1}, name


def watch(module: nn.Module, names: list[str], kind: str) -> Counter[str]:
    met: Counter[str] = Counter()
    for name in names:
        stage = module.get_submodule(name)
        register = getattr(stage, f"register_{kind}_hook")
        handle: list[Any] = []

        def seen(*_: Any, name: str = name, handle: list[Any] = handle) -> None:
            met[name] += 1
            handle[0].remove()

        handle.append(register(seen))
    return met


def test_what_evaluation_keeps_is_made_without_autocast() -> None:
    population = cells().eval()
    x = activity()
    with torch.no_grad():
        wanted = fresh(population, x)
        with torch.autocast("cpu", torch.bfloat16):
            population(x)
        assert torch.equal(population(x), wanted)


def test_what_evaluation_keeps_follows_signs_and_wiring() -> None:
    population, other = (
        cells(synapse={"excitatory": 0.5}).eval(),
        cells(synapse={"excitatory": 0.5, "seed": 1}, wiring={"seed": 1}).eval(),
    )
    x = activity()
    with torch.no_grad():
        before = population(x)
        signs = population.synapses.signs
        assert signs is not None
        turned = functional_call(population, {"synapses.signs": -signs}, (x,))
        signs.neg_()
        assert torch.equal(population(x), fresh(population, x))
        assert torch.equal(turned, population(x))
        assert not torch.equal(before, turned)
        other(x)
        other.load_state_dict(population.state_dict())
        assert torch.equal(other(x), population(x))


@pytest.mark.parametrize("mode", ["same", "valid", "per_dendrite"])
def test_a_tree_without_samples_passes_back_nothing(mode: Any) -> None:
    population = cells(tree={"sheet": (3, 4), "filter": (2, 4, 3), "mode": mode})
    x = activity(0, requires_grad=True)
    population(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    weight = population.dendrites.weight.grad
    assert weight is not None
    assert not weight.any()


def test_a_population_of_inference_mode_is_like_another() -> None:
    x = activity()
    with torch.inference_mode():
        made = cells().eval()
        assert torch.equal(made(x), fresh(made, x))
    with torch.no_grad():
        assert torch.equal(cells().eval()(x), made(x))


def test_autocast_leaves_double_precision_alone() -> None:
    population, layer = cells().double(), GranuleConv2d(1, 2, padding="same").double()
    x, frames = activity(dtype=torch.float64), torch.rand(2, 1, 5, 6, 7, dtype=torch.float64)
    wanted, maps = population(x), layer(frames)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(population(x), wanted, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer(frames), maps, rtol=0, atol=1e-12)


def test_a_cache_that_threads_share_gives_each_its_own() -> None:
    """Replicas of a module hold the same cache, and may hold other weights."""
    cache, wrong = FilterCache(), []

    def ask(value: float) -> None:
        weight = torch.full((4,), value)
        with torch.no_grad():
            for _ in range(2_000):
                made = cache.get((weight,), "doubled", 4, lambda: weight * 2)
                assert made is not None
                if float(made[0]) != 2 * value:
                    wrong.append(value)

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
