"""Counting leaves a model as it was, whatever the model does; what it cannot handle, it names."""

import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from neuroconv.flops import count_exact, measure_time, measure_traffic, profile
from tests.flops.calling import Call


class Vandal(nn.Module):
    """Changes itself in one way a call."""

    def __init__(self, act: Callable[["Vandal", Tensor], None]) -> None:
        super().__init__()
        self.act = act
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3).eval()
        self.log: list[Any] = []
        self.nested: dict[str, Any] = {"seen": {0}, "sums": [torch.zeros(3)]}
        self.total = torch.zeros(3)  # no buffer
        self.generator = np.random.default_rng(0)
        self.python_generator = random.Random(1)
        self.generators = [torch.Generator().manual_seed(2)]
        self.itself: list[Any] = []
        self.itself.append(self.itself)

    def forward(self, x: Tensor) -> Tensor:
        self.act(self, x)
        return self.linear(x)


def writes_weights(model: Vandal, x: Tensor) -> None:
    model.linear.weight.data.mul_(2)
    model.linear.bias.data.zero_()


def grows(model: Vandal, x: Tensor) -> None:
    if "extra" not in model._modules:
        model.extra = nn.Linear(3, 3, device=x.device)
        model.register_buffer("late", x.detach().clone())
        model.linear.register_forward_hook(lambda *_: None)


def shrinks(model: Vandal, x: Tensor) -> None:
    if "norm" in model._modules:
        del model.norm


def remembers(model: Vandal, x: Tensor) -> None:
    model.log.append(x.shape)
    model.nested["seen"].add(1)
    model.nested["sums"][0] += 1
    model.nested["new"] = 1
    model.total += 1


def draws(model: Vandal, x: Tensor) -> None:
    model.generator.random()
    model.python_generator.random()
    torch.rand(2, generator=model.generators[0])
    torch.rand(2), np.random.rand(2), random.random()  # noqa: NPY002


def turns(model: Vandal, x: Tensor) -> None:
    model.train(not model.training)
    model.linear.weight.requires_grad_(False)
    model.linear.bias.grad = torch.ones_like(model.linear.bias)
    torch.set_grad_enabled(False)


def breaks(model: Vandal, x: Tensor) -> None:
    writes_weights(model, x)
    remembers(model, x)
    model.linear(x[:, :2])


ACTS = (writes_weights, grows, shrinks, remembers, draws, turns, breaks)


def described(model: Vandal) -> dict[str, Any]:
    """All that the acts touch, by value."""
    return {
        "state": {key: value.tolist() for key, value in model.state_dict().items()},
        "identity": {key: id(value) for key, value in model.named_parameters()},
        "gradients": [p.grad is None for p in model.parameters()],
        "trained": [p.requires_grad for p in model.parameters()],
        "flags": {path: module.training for path, module in model.named_modules()},
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "log": list(model.log),
        "nested": repr(model.nested),
        "total": model.total.tolist(),
        "cycle": model.itself[0] is model.itself,
        "generators": (
            str(model.generator.bit_generator.state),
            model.python_generator.getstate(),
            model.generators[0].get_state().tolist(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
        ),
        "modes": (torch.is_grad_enabled(), len(_get_current_dispatch_mode_stack())),
    }


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_whatever_a_model_does_is_undone(act: Callable[..., None], device: str) -> None:
    model, x = Vandal(act), torch.rand(4, 3)
    model.linear(x).sum().backward()  # gradients of the user's own
    before, given = described(model), x.tolist()
    jobs: list[Callable[[], object]] = [lambda: profile(model, x, device=device)]
    if device == "cpu":
        jobs.append(lambda: measure_time(model, x, seconds=0.001))
    for job in jobs:
        if act is breaks:
            with pytest.raises((ValueError, RuntimeError), match=r"cannot be multiplied|reduction"):
                job()
        else:
            job()
        assert described(model) == before
    assert x.tolist() == given


class Engine:
    """Runs a module under a lock, which has no copy, and counts its calls."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.lock, self.calls = net, threading.Lock(), 0

    def step(self, x: Tensor) -> Any:
        with self.lock:
            self.calls += 1
            return self.net(x)


class Indirect(nn.Module):
    """A linear layer with the ways by which modules reach their layers past `_modules`."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer = layer = nn.Linear(3, 4)
        self.pool = ThreadPoolExecutor()  # shared, as an open file is
        self.engine = Engine(layer)
        ways: dict[str, Callable[[], Any]] = {
            "bound method": lambda: self.engine.step,
            "partial": lambda: partial(F.linear, weight=layer.weight, bias=layer.bias),
            "closure": lambda: lambda x: layer(x),
            "default": lambda: lambda x, layer=layer: layer(x),
            "compiled": lambda: torch.compile(Engine(layer).step),
            "weak reference": lambda: weakref.ref(layer),
            "weak proxy": lambda: [weakref.proxy(layer)],
            "key": lambda: {layer: "first"},
            "set": lambda: {layer},
            "cycle": lambda: [self],
            "unregistered": lambda: [nn.Linear(3, 4)],
        }
        self.reach = ways[way]()

    def forward(self, x: Tensor) -> Any:
        reach = self.reach() if isinstance(self.reach, weakref.ref) else self.reach
        reach = reach if callable(reach) else next(iter(reach))
        return reach.layer(x) if reach is self else reach(x)


def called_by_a_closure(layer: nn.Module) -> nn.Module:
    forward = layer.forward
    layer.forward = lambda x: forward(x)  # type: ignore[method-assign]
    return layer


def wrapped(wrap: Callable[..., Any], *arguments: Any) -> Callable[[], nn.Module]:
    return lambda: wrap(nn.Linear(3, 4), *arguments)


WAYS = ("bound method", "partial", "closure", "default", "compiled", "weak reference", "weak proxy",
        "key", "set", "cycle", "unregistered")  # fmt: skip
LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{way: partial(Indirect, way) for way in WAYS},
    "called by a closure": wrapped(called_by_a_closure),
    "compiled in place": wrapped(lambda layer: [layer, layer.compile()][0]),
    "compiled module": wrapped(torch.compile),
    "data parallel": wrapped(nn.DataParallel),
    "graph": wrapped(lambda layer: torch.fx.symbolic_trace(nn.Sequential(layer))),
    "parametrised": wrapped(register_parametrization, "weight", nn.Identity()),
    "pruned": wrapped(prune.identity, "weight"),
    "weight norm": wrapped(nn.utils.weight_norm),
}


@pytest.mark.filterwarnings("ignore:Using `torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "compiled" else n for n in LAYERS]
)
def test_a_model_runs_in_another_thread_while_its_copy_is_counted(name: str) -> None:
    model, x = LAYERS[name](), torch.rand(2, 3)
    with torch.compiler.set_stance("force_eager"):
        expected = model(x)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {path: set(vars(module)) for path, module in model.named_modules()}
    answers: list[Tensor] = []

    def run_meanwhile(*_: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # the copy starts to run
            with ThreadPoolExecutor() as pool:
                answers.append(pool.submit(model, x).result())

    calls = getattr(getattr(model, "engine", None), "calls", 0)
    hook = register_module_forward_pre_hook(run_meanwhile)
    try:
        for device in ("meta", "cpu"):
            counts = count_exact(model, x, device=device, backward=True, training=True, strict=True)
            assert counts.mac == 2 * 3 * 4
            assert counts.backward.mac == 2 * 3 * 4
    finally:
        hook.remove()
    assert len(answers) >= 2
    assert all(torch.equal(answer, expected) for answer in answers)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {path: set(vars(module)) for path, module in model.named_modules()} == attributes
    if name == "bound method":
        assert model.engine.calls == calls + len(answers)


def test_weights_that_a_lookup_rescales_are_not_rescaled() -> None:
    table = nn.Embedding(5, 3, max_norm=0.1)
    before = table.weight.clone()
    profile(table, torch.zeros(2, 3, dtype=torch.long))
    assert torch.equal(table.weight, before)


def test_under_inference_mode_a_training_step_is_counted_too() -> None:
    model, x = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)), torch.rand(2, 3)
    plain = profile(model, x)
    with torch.inference_mode():
        inferred = profile(model, torch.rand(2, 3))
        assert torch.is_inference_mode_enabled()
    assert inferred.backward_flop_per_sample == plain.backward_flop_per_sample is not None
    assert (inferred.reference.macs, inferred.traffic) == (plain.reference.macs, plain.traffic)


def test_bytes_inside_inference_mode_are_those_outside() -> None:
    class Inferring(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            with torch.inference_mode():
                return super().forward(x)

    layers = (nn.Conv1d(3, 5, 2), nn.Flatten(), nn.Linear(10, 4), nn.Softmax(1))
    x = torch.rand(2, 3, 3)
    inside, outside = (measure_traffic(kind(*layers), x) for kind in (Inferring, nn.Sequential))
    for name in ("read_bytes", "written_bytes", "compulsory_bytes", "new_bytes"):
        assert getattr(inside.forward, name) == getattr(outside.forward, name) > 0


def test_scripted_and_lazy_modules_are_refused_with_the_way_out() -> None:
    x = torch.rand(2, 3)
    scripted = nn.Sequential(torch.jit.trace(nn.Linear(3, 3), x))
    with pytest.raises(ValueError, match="0 is a scripted module"):
        profile(scripted, x)
    with pytest.raises(ValueError, match="call it once on an input first"):
        profile(nn.Sequential(nn.LazyLinear(3)), x)


def test_a_sparse_model_is_counted_but_its_bytes_are_not() -> None:
    model, x = Call(lambda x: torch.sparse.mm(x.to_sparse(), x.T)), torch.rand(2, 3)
    assert count_exact(model, x, device="cpu").uncounted
    with pytest.raises(ValueError, match=r"layout torch\.sparse_coo.*count_exact lists"):
        measure_traffic(model, x, device="cpu")


def test_a_compiled_model_is_counted_operator_by_operator() -> None:
    plain = nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    compiled: Any = torch.compile(plain)
    x = torch.rand(2, 3)
    for device in ("meta", "cpu"):
        record = profile(compiled, x, device=device, counters=("closed_form", "exact"))
        assert record.agree
        assert record.reference.macs == count_exact(plain, x).macs
    assert compiled._orig_mod is plain
