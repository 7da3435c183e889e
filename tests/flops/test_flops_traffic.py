"""Bytes of hand-computed cases: what is read, written, kept, and alive at once."""

import dataclasses
from collections.abc import Callable
from itertools import accumulate, pairwise
from weakref import finalize

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from neuroconv import create_model
from neuroconv.flops.machine.memory import PassTraffic
from neuroconv.flops.machine.traffic import Traffic, measure_traffic
from tests.flops.calling import Call

B = 4 * 1024  # bytes of a float32 tensor of 1024 elements


def thousand(requires_grad: bool = False) -> Tensor:
    return torch.rand(32, 32, requires_grad=requires_grad)


def chain(length: int) -> nn.Sequential:
    return nn.Sequential(*(nn.ReLU() for _ in range(length)))


@pytest.fixture(params=["meta", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("length", "alive"), [(1, 2), (2, 3), (5, 3)])
def test_a_chain_holds_its_input_and_two_tensors(device: str, length: int, alive: int) -> None:
    bytes_all = length * B
    assert measure_traffic(chain(length), thousand(), device=device) == Traffic(
        device, 0, 0, B, B,
        PassTraffic(bytes_all, bytes_all, 2 * B, length * 1024, bytes_all, alive * B),
    )  # fmt: skip


def doubled_then_halved(x: Tensor) -> Tensor:
    wide = x.repeat(8, 1)
    narrow = wide[:32].clone()
    del wide
    return narrow.exp().repeat(7, 1)


def viewed(x: Tensor) -> Tensor:
    x = x.view(4, 8, 32).view(32, 32)
    return x.t().reshape(-1, 32).unsqueeze(0).transpose(1, 2)[:, :4]


# By name: a function, and the bytes that it reads, writes and makes, and the peak.
FORWARD: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, int, int, int]]] = {
    "two_branches": (lambda x: x.exp() + x.sin(), (4 * B, 3 * B, 3 * B, 4 * B)),
    # The clone reads its slice alone. Input, the wide and the narrow are 10; input, the narrow, its
    # exponential and the last 10 too.
    "freed": (doubled_then_halved, (4 * B, 17 * B, 17 * B, 10 * B)),
    "kept_by_a_view": (lambda x: x.repeat(8, 1)[:32].exp(), (2 * B, 9 * B, 9 * B, 10 * B)),
    "in_place": (lambda x: x.clone().relu_(), (2 * B, 2 * B, B, 2 * B)),
    "overwritten": (lambda x: torch.empty_like(x).copy_(x).fill_(1.0), (B, 2 * B, B, 2 * B)),
    "views": (viewed, (0, 0, 0, B)),
    "expanded": (lambda x: x[:, :1].expand(-1, 32) + x, (B + 32 * 4, B, B, 2 * B)),
    # 17 overlapping windows of one row
    "windows": (lambda x: x.unfold(1, 16, 1).exp(), (B, 17 * B // 2, 17 * B // 2, 19 * B // 2)),
    "same_tensor_twice": (lambda x: x * x, (B, B, B, 2 * B)),
}


@pytest.mark.parametrize("name", FORWARD)
def test_one_pass(name: str, device: str) -> None:
    function, expected = FORWARD[name]
    forward = measure_traffic(Call(function), thousand(), device=device).forward
    read, written = forward.read_bytes, forward.written_bytes
    assert (read, written, forward.new_bytes, forward.peak_bytes) == expected


def test_a_gather_reads_what_it_returns(device: str) -> None:
    rows = torch.tensor([[1, 2, 3]])
    traffic = measure_traffic(nn.Embedding(1000, 8), rows, device=device)
    returned = 3 * 8 * 4
    assert traffic.parameter_bytes == 1000 * 8 * 4
    assert traffic.forward.read_bytes == returned + 3 * 8
    assert traffic.forward.compulsory_bytes == returned + 3 * 8 + returned


@pytest.mark.parametrize("add", [False, True])
def test_a_scatter_touches_what_it_is_given(device: str, add: bool) -> None:
    def scatter(x: Tensor) -> Tensor:
        method = Tensor.index_add_ if add else Tensor.index_copy_
        return method(x.clone(), 0, torch.arange(4, device=x.device), x[:4])

    forward = measure_traffic(Call(scatter), thousand(), device=device).forward
    rows, index = 4 * 32 * 4, 4 * 8
    assert forward.written_bytes == B + index + rows
    assert forward.read_bytes == B + index + rows + (rows if add else 0)


def test_a_linear_layer(device: str) -> None:
    layer, x = nn.Linear(32, 16), thousand()
    traffic = measure_traffic(layer, x, device=device, backward=True)
    weights, outputs = 32 * 16 * 4, 32 * 16 * 4
    assert traffic.parameter_bytes == weights + 64
    assert traffic.forward.read_bytes == weights + 64 + B
    assert traffic.forward.compulsory_bytes == weights + 64 + B + outputs
    assert traffic.forward.peak_bytes == weights + 64 + B + outputs
    # Of the weight: the output's gradient and the input. Of the bias: the output's gradient.
    assert traffic.backward.read_bytes == outputs + B + outputs
    assert traffic.backward.written_bytes == weights + 64
    assert traffic.backward.compulsory_bytes == outputs + B + weights + 64
    assert traffic.backward.peak_bytes == traffic.forward.peak_bytes + outputs + weights + 64
    # The weight is kept for the input's gradient alone, which nobody asked for.
    assert (traffic.saved_bytes, traffic.saved_input_bytes) == (0, B)
    assert traffic.saved_parameter_bytes == 0
    both = measure_traffic(layer, thousand(True), device=device, backward=True)
    assert both.saved_parameter_bytes == weights
    assert both.backward.compulsory_bytes == outputs + B + weights + 64 + weights + B


def test_the_backward_pass_keeps_what_it_must(device: str) -> None:
    traffic = measure_traffic(chain(3), thousand(True), device=device, backward=True)
    assert traffic.forward.peak_bytes == 4 * B  # each rectifier keeps what it returned
    assert (traffic.saved_elements, traffic.saved_bytes) == (3 * 1024, 3 * B)
    assert traffic.backward.read_bytes == 6 * B
    assert traffic.backward.written_bytes == 3 * B
    # Input, three results, the output's gradient, and the gradient that comes and the one that goes
    assert traffic.backward.peak_bytes == traffic.peak_bytes == 7 * B
    assert traffic.backward.compulsory_bytes == 2 * B  # one gradient comes, one goes
    assert measure_traffic(chain(3), thousand(True), device=device).saved_bytes is None


def test_a_storage_kept_twice_counts_once(device: str) -> None:
    # The exponential is kept by itself and by the product, whole and in part.
    shared = nn.Sequential(Call(torch.exp), Call(lambda x: x * x.view(-1, 32)))
    traffic = measure_traffic(shared, thousand(True), device=device, backward=True)
    assert traffic.saved_bytes == B


def test_batch_norm_writes_its_statistics_in_training(device: str) -> None:
    layer, x = nn.BatchNorm1d(32), thousand()
    forward = measure_traffic(layer, x, device=device, training=True).forward
    # Mean and variance, both of the batch and running, and the count of batches.
    assert forward.written_bytes == B + 4 * 32 * 4 + 8
    assert forward.read_bytes == B + 4 * 32 * 4 + 8  # weight, bias, and what is moved


def test_tied_weights_count_once() -> None:
    first, second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    traffic = measure_traffic(nn.Sequential(first, second), torch.rand(2, 8))
    assert traffic.parameter_bytes == 8 * 8 * 4
    assert traffic.forward.compulsory_bytes == 8 * 8 * 4 + 2 * 2 * 8 * 4


def test_a_literal_is_written_where_it_comes_to_be() -> None:
    model = Call(lambda x: x + torch.tensor([1.0] * 32).to(x.device))
    on_meta = measure_traffic(model, thousand())
    on_cpu = measure_traffic(model, thousand(), device="cpu")
    assert on_meta.forward == on_cpu.forward
    assert on_cpu.forward.written_bytes == B + 32 * 4


def on_both(model: nn.Module, x: Tensor, *, training: bool) -> list[Traffic]:
    options: dict[str, bool] = {"backward": True, "training": training}
    measured = (measure_traffic(model, x, device=device, **options) for device in ("meta", "cpu"))
    return [dataclasses.replace(traffic, device="") for traffic in measured]


NAMES = ["cerebellum_tiny", "granule_convnet", "lenet5", "plain_cnn"]


def build(name: str) -> nn.Module:
    return create_model(name, image_shape=(1, 12, 12), num_classes=3, time_steps=3)


@pytest.mark.parametrize("name", [pytest.param(NAMES[0], marks=pytest.mark.slow), *NAMES[1:]])
def test_meta_and_cpu_differ_by_what_batch_norms_return_in_evaluation(name: str) -> None:
    model, x = build(name), torch.rand(2, 1, 12, 12)
    meta, cpu = on_both(model, x, training=True)
    assert meta == cpu
    assert meta.compulsory_bytes < meta.moved_bytes
    calls: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_hook(lambda m, args, result: calls.append(m.num_features))
    meta, cpu = on_both(model, x, training=False)
    statistics = sum(calls)  # called on meta and on the CPU, so that each channel is there twice
    assert meta.forward.new_elements - cpu.forward.new_elements == statistics
    assert meta.forward.written_bytes - cpu.forward.written_bytes == 4 * statistics
    assert meta.forward.read_bytes == cpu.forward.read_bytes
    assert meta.forward.compulsory_bytes == cpu.forward.compulsory_bytes


@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    batch=st.integers(1, 5),
    norm=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_bounds_hold_for_random_networks(widths: list[int], batch: int, norm: bool) -> None:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), *[nn.LayerNorm(after)] * norm]
    model = nn.Sequential(*layers)
    single = measure_traffic(model, torch.rand(batch, widths[0]), backward=True)
    double = measure_traffic(model, torch.rand(2 * batch, widths[0]), backward=True)
    for part in (single.forward, single.backward):
        assert part.compulsory_bytes <= part.moved_bytes
        assert part.peak_bytes >= single.parameter_bytes + single.input_bytes + single.output_bytes
    assert single.saved_bytes <= single.forward.new_bytes
    # All but the parameters grows with the batch.
    assert single.moved_bytes < double.moved_bytes < 2 * single.moved_bytes
    assert double.input_bytes == 2 * single.input_bytes


def test_no_storage_stays_watched() -> None:
    watches = len(finalize._registry)
    measure_traffic(build("lenet5"), torch.rand(2, 1, 12, 12), backward=True, training=True)
    assert len(finalize._registry) == watches


def test_errors_name_the_way_out() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no output requires a gradient"):
        measure_traffic(frozen, torch.rand(1, 2), backward=True)
    with pytest.raises(ValueError, match="use device='cpu'"):
        measure_traffic(Call(lambda x: x * x.sum().item()), thousand())


def allocated(model: nn.Module, x: Tensor, *, backward: bool) -> int:
    """The most bytes that PyTorch's own allocator gave out at once, beyond what was there."""
    with (
        torch.set_grad_enabled(backward),
        profile(
            activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as recorded,
    ):
        result = model(x)
        if backward:
            result.backward(torch.ones_like(result))
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in ordered))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(*chain(2), nn.Sigmoid(), Call(lambda x: x.exp() + x.sin())), (64, 64)),
        (nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16)), (32, 64)),
        (nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Softmax(1), nn.Linear(96, 8)), (32, 64)),
    ],
    ids=["pointwise", "linear", "softmax"],
)
def test_the_allocator_of_the_cpu_agrees(
    model: nn.Module, shape: tuple[int, ...], backward: bool
) -> None:
    x = torch.rand(shape, requires_grad=backward)
    model.zero_grad(set_to_none=True)
    traffic = measure_traffic(model, x, device="cpu", backward=backward, training=True)
    before = traffic.parameter_bytes + traffic.buffer_bytes + traffic.input_bytes
    # These operators need no workspace.
    assert allocated(model, x, backward=backward) == traffic.peak_bytes - before


@pytest.mark.gpu
@pytest.mark.parametrize("backward", [False, True])
def test_the_peak_is_what_the_allocator_saw(backward: bool) -> None:
    """Sizes are multiples of the allocator's 512 bytes, and no operator needs a workspace."""
    model = nn.Sequential(nn.ReLU(), Call(lambda x: x.exp() + x.sin()), nn.Sigmoid()).cuda()
    x = torch.rand(1024, 1024, device="cuda", requires_grad=backward)
    expected = measure_traffic(model, x, device="cuda", backward=backward)
    on_meta = measure_traffic(model, x, backward=backward)
    assert expected == dataclasses.replace(on_meta, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    with torch.set_grad_enabled(backward):
        result = model(x)
        if backward:
            result.backward(torch.ones_like(result))
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - start + expected.input_bytes == expected.peak_bytes
