"""What a counter cannot see is refused; control flow and differentiation within a model it sees."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops.map import map as map_rows
from torch.nn.attention.flex_attention import flex_attention

from neuroconv.flops import count_closed_form, count_exact, count_fvcore, measure_traffic

POOL = ThreadPoolExecutor(1)
POOL.submit(int).result()  # its thread is older than any count
CONSTANT = torch.rand(4, 4)


class Net(nn.Module):
    """A linear layer and a square matrix, used by a function."""

    def __init__(self, function: Callable[["Net", Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.layer = nn.Linear(4, 4)
        self.matrix = nn.Parameter(torch.rand(4, 4))
        self.table = np.ones((4, 4), np.float32)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def in_a_thread(net: Net, x: Tensor) -> Tensor:
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(x @ net.matrix))
    thread.start()
    thread.join()
    return net.layer(results[0])


def in_a_new_pool(net: Net, x: Tensor) -> Tensor:
    with ThreadPool(2) as pool:
        return sum(pool.map(net.matrix.__rmatmul__, [x, x]))  # type: ignore[return-value]


def into_memory_of_this_thread(net: Net, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    POOL.submit(lambda: torch.mm(x, net.matrix.detach(), out=out)).result()
    return net.layer(out[:])


OUTSIDE: dict[str, tuple[Callable[[Net, Tensor], Any], str]] = {
    "thread": (in_a_thread, r"aten\.addmm\.default.* received a tensor of shape \(3, 4\)"),
    "old pool": (lambda net, x: POOL.submit(lambda: x @ net.matrix).result(),
                 "the output received"),
    "new pool": (in_a_new_pool, r"aten\.add\.Tensor received"),
    "in place": (lambda net, x: POOL.submit(lambda: x @ net.matrix).result().mul_(2),
                 r"aten\.mul_\.Tensor received"),
    "through memory": (into_memory_of_this_thread, r"aten\.addmm\.default.* received"),
}  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_work_of_other_threads_is_refused(name: str, device: str) -> None:
    function, reason = OUTSIDE[name]
    for count in (count_exact, measure_traffic, count_closed_form):
        with pytest.raises(ValueError, match=reason):
            count(Net(function), torch.rand(3, 4), device=device)
    with pytest.raises(ValueError, match=f"{reason}|Cannot insert a Tensor|real tensors"):
        count_fvcore(Net(function), torch.rand(3, 4), device=device)


def test_a_module_that_runs_in_another_thread_is_named_though_it_returns_a_number() -> None:
    model = Net(lambda net, x: x * POOL.submit(lambda: net.layer(x).sum().item()).result())
    with pytest.raises(ValueError, match="the module 'layer' ran outside the counted thread"):
        count_exact(model, torch.rand(3, 4), device="cpu")


@cache
def cached(device: torch.device) -> Tensor:
    return torch.ones(4, 4, device=device)


CONSTANTS: dict[str, Callable[[Net, Tensor], Any]] = {
    "global": lambda net, x: x @ CONSTANT.to(x.device),
    "view of a global": lambda net, x: x @ CONSTANT.data.t().to(x.device),
    "cache": lambda net, x: x @ cached(x.device),
    "literal": lambda net, x: net.layer(x) * torch.tensor([1.0, 2, 3, 4], device=x.device),
    "list of indices": lambda net, x: net.layer(x)[:, [0, 3]],
    "NumPy": lambda net, x: x @ torch.from_numpy(net.table).to(x.device),
    "new NumPy": lambda net, x: x @ torch.as_tensor(2 * net.table).to(x.device),
    "drawn": lambda net, x: x @ torch.empty(4, 4, device=x.device).normal_(),
    "filled": lambda net, x: torch.stack(torch.empty_like(x).copy_(x).unbind()) @ net.matrix,
    "shape alone": lambda net, x: torch.zeros_like(torch.empty_like(x)) @ net.matrix,
}  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_no_work_of_other_threads(name: str, device: str) -> None:
    counts = count_exact(Net(CONSTANTS[name]), torch.rand(3, 4), device=device, strict=True)
    assert counts.macs == {"matmul": 3 * 4 * 4}


# By name: the function, and MAC forward and backward. On meta a loop may count on the CPU, but no
# branch can be chosen by a value that the model computes.
FLOW: dict[str, tuple[Callable[[Net, Tensor], Any], int, int]] = {
    "cond": (
        lambda net, x: torch.cond(x.sum() > 0, lambda x: net.layer(x), lambda x: x.sin(), (x,)),
        48, 2 * 48,
    ),
    "cond, else": (
        lambda net, x: torch.cond(x.sum() < 0, lambda x: net.layer(x), lambda x: x.sin(), (x,)),
        0, 0,
    ),
    "while_loop": (
        lambda net, x: while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, net.layer(x)), (torch.tensor(0), x)
        )[1],
        3 * 48, 3 * 2 * 48,
    ),
    # Three rows; the last carry, of which no output depends, has no backward pass.
    "scan": (
        lambda net, x: scan(lambda c, r: (net.layer(c + r), c.clone()), 0 * x[:1], x[:, None])[1],
        3 * 16, 2 * 2 * 16,
    ),
    "associative_scan": (
        lambda net, x: associative_scan(
            lambda a, b: a + b @ net.matrix, x, 0, combine_mode="generic"
        ),
        2 * 16, 2 * 2 * 16,
    ),
    "map": (lambda net, x: map_rows(lambda row: net.layer(row), x), 3 * 16, 3 * 2 * 16),
}  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", FLOW)
def test_control_flow(name: str, device: str) -> None:
    function, forward, backward = FLOW[name]
    x = torch.rand(3, 4, requires_grad=True)
    if device == "meta" and name.startswith("cond"):
        with pytest.raises(ValueError, match=r"cond: .*use device='cpu'"):
            count_exact(Net(function), x)
        return
    for trains in (False, True):
        counts = count_exact(Net(function), x, device=device, backward=trains, strict=True)
        assert counts.mac == forward
    assert counts.backward.mac == backward


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flexible_attention_is_counted_on_the_cpu() -> None:
    model = Net(lambda net, x: flex_attention(x, x, x))
    x = torch.rand(2, 3, 5, 4)
    assert count_exact(model, x, device="cpu", strict=True).mac == 2 * 3 * 2 * 5 * 5 * 4
    with pytest.raises(ValueError, match=r"FlexAttention.*use device='cpu'"):
        count_exact(model, x)


def test_an_operator_that_hides_functions_is_refused_by_its_name() -> None:
    hidden = torch.ops.higher_order.out_dtype
    model = Net(lambda net, x: hidden(torch.ops.aten.mm.default, torch.int32, x, x))
    with pytest.raises(ValueError, match="out_dtype runs what no counter sees"):
        count_exact(model, torch.ones(4, 4, dtype=torch.int8), device="cpu")


def force(net: Net, x: Tensor) -> Tensor:
    place = x.detach().requires_grad_()
    energy = net.layer(place).sum()
    return torch.autograd.grad(energy, place, create_graph=torch.is_grad_enabled())[0]


# By name: the function, and its products: the layer, and the derivative by its input. Forward mode
# multiplies the derivative of the weights, which is zero, too.
DERIVATIVES: dict[str, tuple[Callable[[Net, Tensor], Any], int]] = {
    "enable_grad": (lambda net, x: torch.enable_grad()(force)(net, x), 2),
    "grad": (lambda net, x: torch.func.grad(lambda x: net.layer(x).sum())(x), 2),
    "vjp": (lambda net, x: torch.func.vjp(net.layer, x)[1](torch.ones_like(x))[0], 2),
    "jvp": (lambda net, x: torch.func.jvp(net.layer, (x,), (x,))[1], 3),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_forward_pass_that_differentiates(name: str, device: str) -> None:
    function, products = DERIVATIVES[name]
    counts = count_exact(Net(function), torch.rand(3, 4), device=device, strict=True)
    assert counts.mac == products * 3 * 4 * 4


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_forward_pass_that_differentiates_without_gradients_says_so(device: str) -> None:
    x = torch.rand(3, 4)
    with pytest.raises(ValueError, match=r"differentiate under torch\.enable_grad.*backward=True"):
        count_exact(Net(force), x, device=device)
    counts = count_exact(Net(force), x, device=device, backward=True, strict=True)
    assert counts.mac == 2 * 3 * 4 * 4
