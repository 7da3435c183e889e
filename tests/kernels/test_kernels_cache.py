"""What evaluation keeps of filters is dropped when a filter changes, however it is changed."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuroconv.core.counting import counting
from neuroconv.kernels import cache
from neuroconv.kernels.cache import FilterCache
from neuroconv.kernels.native import native_kernels
from neuroconv.layers import DendriticConv, Taps, TreeShape
from neuroconv.neurons import Granule

Change = Callable[[nn.Parameter], object]


def optimise(weight: nn.Parameter) -> None:
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.1).step()


def optimise_fused(weight: nn.Parameter) -> None:
    weight.grad, version = torch.ones_like(weight), weight._version
    torch.optim.AdamW([weight], lr=0.1, fused=True).step()
    assert weight._version == version


CHANGES: dict[str, Change] = {
    "in_place": lambda w: nn.init.normal_(w),
    "data": lambda w: w.data.mul_(2),
    "data_assigned": lambda w: setattr(w, "data", w.data * 3),
    "numpy": lambda w: w.detach().numpy().fill(0.5),
    "one_tap": lambda w: w.data.view(-1)[-1:].add_(1e-3),
    "optimizer": optimise,
    "fused_optimizer": optimise_fused,
}


def fft() -> tuple[nn.Module, Tensor, nn.Parameter]:
    layer = DendriticConv(2, TreeShape((6, 8), (3, 8, 2), mode="same"), Taps(backend="fft"))
    return layer, torch.randn(2, 2, 4, 6, 8), layer.weight


def unrolled() -> tuple[nn.Module, Tensor, nn.Parameter]:
    layer = DendriticConv(
        2, TreeShape((4, 3), (3, 3, 2), mode="same"), Taps(backend="matmul", equalized_lr=True)
    )
    return layer, torch.randn(2, 2, 4, 4, 3), layer.weight


def tree() -> tuple[nn.Module, Tensor, nn.Parameter]:
    cells = Granule(
        9, 5, taps={"backend": "matmul"}, output={"mean_wait": 0.0}, synapse={"excitatory": 0.6}
    )
    return cells, torch.rand(2, 9, 5), cells.dendrites.weight


def synapse() -> tuple[nn.Module, Tensor, nn.Parameter]:
    cells, activity, _ = tree()
    return cells, activity, cells.get_parameter("synapses.weight")


MAKERS = {"fft": fft, "unrolled": unrolled, "tree": tree, "synapse": synapse}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("maker", MAKERS)
def test_a_changed_filter_is_met_at_the_next_call(maker: str, change: str) -> None:
    torch.manual_seed(0)
    layer, x, weight = MAKERS[maker]()
    layer.eval()
    with torch.no_grad():
        first = layer(x)
        assert torch.equal(layer(x), first)
    CHANGES[change](weight)
    with torch.no_grad():
        changed = layer(x)
        assert not torch.equal(changed, first)
        fresh = copy.deepcopy(layer)
        assert torch.equal(changed, fresh(x))


@pytest.mark.parametrize("maker", MAKERS)
@native_kernels(False)  # which keep nothing: they make it sooner than they would read it
def test_it_is_computed_once(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[Any] = []
    plain = FilterCache.get

    def spy(self: FilterCache, sources: Any, key: Any, numbers: int, make: Any) -> Tensor | None:
        def noted() -> Tensor:
            keys.append(key)
            return make()

        return plain(self, sources, key, numbers, noted)

    monkeypatch.setattr(FilterCache, "get", spy)
    layer, x, _ = MAKERS[maker]()
    layer.eval()
    with torch.no_grad():
        for _ in range(3):
            layer(x)
    assert len(keys) == 1
    with torch.inference_mode():  # what it kept serves here too
        layer(x)
    assert len(keys) == 1
    with torch.no_grad(), counting():  # a counter sees the whole work
        layer(x)
    layer(x)  # with gradients nothing is kept
    assert len(keys) == 1
    layer.train()
    layer.eval()
    with torch.no_grad():
        layer(x)
    assert len(keys) == 2


@pytest.mark.parametrize("maker", MAKERS)
def test_a_run_in_inference_mode_serves_a_later_training_step(maker: str) -> None:
    layer, x, weight = MAKERS[maker]()
    layer.eval()
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert weight.grad.isfinite().all()


def test_nothing_is_kept_where_a_comparison_would_wait() -> None:
    with torch.no_grad():  # on meta as on any device but the CPU
        for device, kept in (("cpu", True), ("meta", False)):
            weight = torch.zeros(2, device=device)
            assert (FilterCache().get((weight,), "key", 2, weight.clone) is not None) is kept


def test_a_window_of_another_length_has_its_own_entry() -> None:
    layer, x, _ = fft()
    layer.eval()
    with torch.no_grad():
        longer = layer(torch.cat([x, x], 2))
        torch.testing.assert_close(layer(x), longer[:, :, : x.shape[2]], rtol=1e-5, atol=1e-5)


def test_it_is_no_part_of_the_state() -> None:
    layer, x, _ = fft()
    layer.eval()
    with torch.no_grad():
        layer(x)
    assert set(layer.state_dict()) == {"weight", "bias"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._cache._entry is None
        with torch.no_grad():
            assert torch.equal(other(x), layer(x))


def test_what_is_too_large_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MOST_BYTES", 100)
    layer, x, _ = fft()
    layer.eval()
    with torch.no_grad():
        layer(x)
    assert layer._cache._entry is None
