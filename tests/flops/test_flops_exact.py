"""The exact counter: every operator is counted, costs nothing for a reason, or is listed."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

from neuroconv.flops import Counts, count_closed_form, count_exact, measure_traffic
from neuroconv.flops.operators import RULES, ZERO
from neuroconv.flops.rules import DATA
from tests.flops.calling import Call


def count(function: Callable[..., object], *inputs: Tensor, **options: object) -> Counts:
    return count_exact(Call(function), inputs, **options)  # type: ignore[arg-type]


def backward_of(counts: Counts) -> Counts:
    assert counts.backward is not None
    return counts.backward


def index(like: Tensor, *shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.long, device=like.device)


image, flat = torch.zeros(2, 4, 6, 8), torch.zeros(6, 10)

# By name: the function, its inputs, MAC and FLOP by family; derived by hand from the convention.
FORWARD: dict[str, tuple[Callable[..., object], tuple[Tensor, ...], dict[str, int]]] = {
    "cat_pad_index": (lambda x: F.pad(torch.cat([x, x[:, [1, 0]]], 1), (1, 1)), (image,), {}),
    "gather": (lambda x: x.gather(0, index(x, 3, 10)), (flat,), {}),
    "scatter_add": (lambda x: x.scatter_add(0, index(x, 4, 10), x[:4]), (flat,), {"scatter": 40}),
    "scatter_that_adds": (lambda x: x.scatter(0, index(x, 4, 10), 0.5, reduce="add"), (flat,),
                          {"scatter": 40}),
    "scatter_that_replaces": (lambda x: x.scatter(0, index(x, 4, 10), x[:4]), (flat,), {}),
    "index_add": (lambda x: x.index_add(0, index(x, 3), x[:3]), (flat,), {"scatter": 30}),
    "index_put": (lambda x: x.index_put((index(x, 2),), x[:2], accumulate=True), (flat,),
                  {"scatter": 20}),
    "index_put_replaces": (lambda x: x.index_put((index(x, 2),), x[:2]), (flat,), {}),
    "embedding_bag": (lambda x: F.embedding_bag(index(x, 5, 3), x, mode="sum"), (flat,),
                      {"reduction": 15 * 10}),
    "sort": (lambda x: torch.sort(x)[0], (flat,), {"sorting": 60 * 4}),
    "topk": (lambda x: torch.topk(x, 2, dim=0)[0], (flat,), {"sorting": 60 * 3}),
    "searchsorted": (lambda x: torch.searchsorted(x[0], x[1]), (flat,), {"sorting": 10 * 4}),
    "rand": (lambda x: torch.rand(3, 5, device=x.device), (flat,), {"random": 15}),
    "normal_and_scale": (lambda x: 2 * torch.randn_like(x), (flat,),
                         {"random": 60, "pointwise": 60}),
    "poisson": (lambda x: torch.poisson(x), (flat,), {"random": 60}),
    "bernoulli": (lambda x: torch.bernoulli(x), (flat,), {"random": 60}),
    "integers_drawn": (lambda x: torch.randint(5, (7,), device=x.device), (flat,), {}),
    "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=2), (image,), {}),
    "upsample_bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (image,),
                          {"pooling": 4 * 4 * image.numel()}),
    "grid_sample": (lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2, device=x.device),
                    align_corners=False), (image,), {"pooling": 4 * 2 * 4 * 9}),
    "bilinear": (lambda x, y: F.bilinear(x, y, torch.zeros(7, 10, 5, device=x.device)),
                 (flat, torch.zeros(6, 5)), {"matmul": 6 * 7 * 50, "pointwise": 6 * 7 * 50}),
    "complex_product": (lambda x: torch.complex(x, x) @ torch.complex(x, x).T, (flat,),
                        {"matmul": 4 * 6 * 6 * 10}),
    "cdist": (lambda x: torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist"), (flat,),
              {"reduction": 3 * 36 * 10}),
    # (-2 a, |a|^2, 1) by (b, 1, |b|^2): 12 terms; pointwise -2 a, a^2, b^2, bound and root.
    "cdist_of_many": (lambda x: torch.cdist(x, x), (torch.zeros(30, 10),),
                      {"matmul": 900 * 12, "pointwise": 3 * 300 + 2 * 900, "reduction": 2 * 300}),
    "norms_bounded": (lambda w: F.embedding(index(w, 5, 3), w, max_norm=1.0), (flat.clone(),),
                      {"reduction": 150}),
    "logits_loss": (lambda x: F.binary_cross_entropy_with_logits(x, x), (flat,),
                    {"pointwise": 120}),
    "bilinear_of_nothing": (lambda x: F.bilinear(x[:0], x[:0], torch.zeros(7, 10, 10,
                                                 device=x.device)), (flat,), {}),
    "complex_convolution": (  # three real ones; their sums before, seven FLOP an output after
        lambda x, w: F.conv1d(torch.complex(x, x), torch.complex(w, w)),
        (torch.zeros(2, 3, 9), torch.zeros(5, 3, 3)),
        {"convolution": 3 * 2 * 5 * 7 * 9, "pointwise": 54 + 45 + 7 * 70}),
    "forward_mode": (lambda x: torch.func.jvp(torch.sin, (x,), (x,))[1], (flat,),
                     {"pointwise": 3 * 60}),
    "copied_view": (lambda x: torch.permute_copy(x, (1, 0)), (flat,), {}),
    "packed": (lambda x: nn.utils.rnn.pack_padded_sequence(x, [3, 2], batch_first=True)[0],
               (torch.zeros(2, 3, 4),), {}),
    "max_of_two": (torch.max, (flat, flat), {"pointwise": 60}),
    "max_along_an_axis": (lambda x: x.max(1)[0], (flat,), {"reduction": 60}),
    "max_pool3d": (lambda x: F.max_pool3d(x[None], 2, 1), (image,), {"pooling": 8 * 2 * 3 * 5 * 7}),
    "sum_with_a_factor": (lambda x: x.sub(x, alpha=0.5), (flat,), {"pointwise": 120}),
    "sums_with_a_factor": (
        lambda x: torch._foreach_add([x, x], [x, x], alpha=2), (flat,), {"pointwise": 240}
    ),
    "quotient_and_sum": (lambda x: x.addcdiv(x, x), (flat,), {"pointwise": 120}),
    "compared": (lambda x: x > 0.5, (flat,), {"pointwise": 60}),
    "masked_fill": (lambda x: x.masked_fill(x > 0.5, 0.0), (flat,), {"pointwise": 120}),
    "dropout": (lambda x: F.dropout(x, training=True), (flat,), {"pointwise": 120, "random": 60}),
    "dropout_of_none": (lambda x: F.dropout(x, p=0.0, training=True), (flat,), {}),
    "dropout_of_all": (lambda x: F.dropout(x, p=1.0, training=True), (flat,), {"pointwise": 60}),
    "dropout2d": (lambda x: F.dropout2d(x, training=True), (image,),
                  {"pointwise": 8 + image.numel(), "random": 8}),
    "alpha_dropout": (lambda x: F.alpha_dropout(x, training=True), (flat,),
                      {"pointwise": 6 * 60, "random": 60}),
    "multinomial": (lambda x: (x + 1).flatten().multinomial(7), (flat,),
                    {"pointwise": 60, "random": 7}),
    "index_put_at_two_axes": (
        lambda x: torch.ops.aten.index_put(x, [index(x, 2), None, index(x, 2)], x.new_ones(()),
                                           accumulate=True), (image,), {"scatter": 2 * 4 * 8}),
    "instance_norm_of_running_statistics": (
        lambda x: F.instance_norm(x, x.new_zeros(4), x.new_ones(4), use_input_stats=False),
        (image,), {"normalisation": 2 * image.numel()}),
    "complex_sum": (lambda x: torch.complex(x, x) + torch.complex(x, x), (flat,),
                    {"pointwise": 120}),
    "complex_by_real": (lambda x: torch.complex(x, x) * x, (flat,), {"pointwise": 120}),
    "mse": (lambda x: F.mse_loss(x, x), (flat,), {"pointwise": 120}),
    "cross_entropy": (lambda x: F.cross_entropy(x, index(x, 6)), (flat,),
                      {"normalisation": 300, "reduction": 6}),
    "vmapped_convolution": (
        # each of five neurons has a filter of its own: vmap makes one grouped convolution of it
        torch.vmap(lambda x, w: F.conv1d(x, w), in_dims=(1, 0)),
        (torch.zeros(2, 5, 3, 9), torch.zeros(5, 4, 3, 2)), {"convolution": 2 * 5 * 8 * 4 * 3 * 2}),
    "vmapped_product": (torch.vmap(torch.mv), (torch.zeros(5, 3, 4), torch.zeros(5, 4)),
                        {"matmul": 60}),
}  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", FORWARD)
def test_forward(name: str, device: str) -> None:
    function, inputs, expected = FORWARD[name]
    counts = count(function, *inputs, device=device, strict=True)
    assert {**counts.macs, **counts.flops} == expected
    assert counts.backward is None


def leaf(*shape: int) -> Tensor:
    return torch.zeros(*shape, requires_grad=True)


# By name: the function, inputs that require gradients, and the backward pass alone.
BACKWARD: dict[str, tuple[Callable[..., object], tuple[Tensor, ...], dict[str, int]]] = {
    "linear": (F.linear, (leaf(5, 3), leaf(4, 3)), {"matmul": 2 * 60}),
    "linear_bias": (F.linear, (leaf(5, 3), leaf(4, 3), leaf(4)),
                    {"matmul": 2 * 60, "reduction": 20}),
    "linear_weight_alone": (F.linear, (torch.zeros(5, 3), leaf(4, 3)), {"matmul": 60}),
    "relu": (F.relu, (leaf(6, 10),), {"pointwise": 60}),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
                   (leaf(6, 10), leaf(10), leaf(10)), {"normalisation": 2 * 5 * 60}),
    "layer_norm": (lambda x: F.layer_norm(x, (10,)), (leaf(6, 10),), {"normalisation": 2 * 4 * 60}),
    "softmax": (lambda x: F.softmax(x, 1), (leaf(6, 10),), {"normalisation": 4 * 60}),
    "max_pool": (lambda x: F.max_pool2d(x, 2), (leaf(2, 4, 6, 8),), {"pooling": 2 * 4 * 12}),
    "avg_pool": (lambda x: F.avg_pool2d(x, 2), (leaf(2, 4, 6, 8),), {"pooling": 2 * 4 * 12 * 4}),
    "gather": (lambda x: x.gather(0, index(x, 3, 10)), (leaf(6, 10),), {"scatter": 30}),
    "index": (lambda x: x[:, [0, 0, 3]], (leaf(6, 10),), {"scatter": 18}),
    "embedding": (lambda w: F.embedding(index(w, 5, 3), w), (leaf(6, 10),), {"scatter": 150}),
    "sum": (torch.sum, (leaf(6, 10),), {}),
    "shrink": (F.hardshrink, (leaf(6, 10),), {"pointwise": 60}),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g), (leaf(6, 10), leaf(6, 1)),
                    {"normalisation": 6 * 60}),
    "embedding_bag": (lambda w: F.embedding_bag(index(w, 5, 3), w, mode="sum"), (leaf(6, 10),),
                      {"scatter": 15 * 10}),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False),
                    (leaf(2, 4, 6, 8), leaf(2, 3, 3, 2)), {"pooling": 2 * 4 * 2 * 4 * 9}),
    "upsample_nearest_exact": (lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
                               (leaf(2, 4, 6, 8),), {"scatter": 4 * 2 * 4 * 48}),
}  # fmt: skip


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", BACKWARD)
def test_backward(name: str, device: str) -> None:
    function, inputs, expected = BACKWARD[name]
    after = backward_of(count(function, *inputs, device=device, backward=True, strict=True))
    assert {**after.macs, **after.flops} == expected


def test_backward_of_a_grouped_convolution_under_vmap() -> None:
    # torch's own counter takes the weight gradients too high by the number of neurons.
    per_neuron = torch.vmap(lambda x, w: F.conv1d(x, w), in_dims=(1, 0))
    counts = count(per_neuron, leaf(2, 5, 3, 9), leaf(5, 4, 3, 2), backward=True)
    assert backward_of(counts).mac == 2 * counts.mac
    with FlopCounterMode(display=False) as stock:
        per_neuron(leaf(2, 5, 3, 9), leaf(5, 4, 3, 2)).sum().backward()
    assert stock.get_total_flops() > 2 * 3 * counts.mac


@pytest.mark.parametrize(
    ("kind", "gates", "cell"), [(nn.LSTM, 4, 13), (nn.GRU, 3, 10), (nn.RNN, 1, 2)]
)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers(
    kind: type[nn.RNNBase], gates: int, cell: int, layers: int, directions: int
) -> None:
    model = kind(3, 4, layers, bidirectional=directions == 2, batch_first=True)
    x = leaf(2, 5, 3)
    fan_in = [3] + [4 * directions] * (layers - 1)
    expected = sum(2 * 5 * directions * gates * 4 * (size + 4) for size in fan_in)
    flops = 2 * 5 * directions * layers * 4 * cell
    stated = count_closed_form(model, x.detach()).counts
    assert (stated.macs, stated.flops) == ({"matmul": expected}, {"pointwise": flops})
    for device in ("meta", "cpu"):
        counts = count_exact(model, x, device=device, backward=True, strict=True)
        assert counts.macs == {"matmul": expected}, device
        # Operator by operator the initial state, which is zero, needs no gradient.
        initial = 2 * directions * layers * gates * 4 * 4
        assert backward_of(counts).mac in (2 * expected, 2 * expected - initial), device
        # Where the input's share of the gates is one product for all steps, as it may be on the
        # CPU, a layer adds its bias in an operator of its own.
        apart, rest = divmod(counts.flops["pointwise"] - flops, gates * 4 * 2 * 5)
        assert rest == 0, device
        assert 0 <= apart <= layers * directions * (kind is not nn.LSTM and device == "cpu"), device


@pytest.mark.parametrize(("kind", "gates", "cell"), [(nn.LSTMCell, 4, 13), (nn.GRUCell, 3, 10)])
def test_a_recurrent_cell(kind: type[nn.RNNCellBase], gates: int, cell: int) -> None:
    counts = count_exact(kind(3, 4), torch.zeros(2, 3), strict=True)
    assert counts.macs == {"matmul": 2 * gates * 4 * 7}
    assert counts.flops == {"pointwise": 2 * 4 * cell}


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention(device: str) -> None:
    q, k, v = leaf(2, 3, 5, 4), leaf(2, 3, 7, 4), leaf(2, 3, 7, 4)
    counts = count(
        F.scaled_dot_product_attention, q, k, v, device=device, backward=True, strict=True
    )
    scores = 2 * 3 * 5 * 7
    assert counts.macs == {"matmul": scores * 8}
    assert counts.flops["normalisation"] == 5 * scores
    # The fused kernel computes the scores again, the plain one has saved them.
    assert backward_of(counts).mac in (scores * 16, scores * 20)
    query, key = torch.zeros(2, 8, 5, 4), torch.zeros(2, 2, 7, 4)  # grouped heads
    grouped = partial(F.scaled_dot_product_attention, enable_gqa=True)
    counts = count(grouped, query, key, key, device=device, strict=True)
    assert counts.macs == {"matmul": 2 * 8 * 35 * (4 + 4)}


def test_a_checkpoint_counts_its_second_forward_pass_as_backward() -> None:
    layer = nn.Sequential(nn.Linear(3, 5), nn.ReLU())  # the rectifier runs again
    for reentrant in (False, True):
        counts = count(
            partial(checkpoint, layer, use_reentrant=reentrant), leaf(2, 3),
            device="cpu", backward=True, strict=True,
        )  # fmt: skip
        layer.zero_grad()
        assert (counts.mac, backward_of(counts).mac) == (30, 30 + 2 * 30)


def test_inference_mode_is_seen_through() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding="same"), nn.Flatten(), nn.Linear(288, 5))
    inferred = torch.inference_mode()(model.forward)
    assert count(inferred, image, device="cpu").macs == count_exact(model, image).macs


@pytest.fixture(scope="module")
def foreign() -> Iterator[Any]:
    """Operators with names of aten, which multiply unseen, and `composite`."""
    with torch.library._scoped_library("neuroconv_test", "FRAGMENT") as library:
        for name in ("gather", "mm", "relu", "composite"):
            library.define(f"{name}(Tensor x) -> Tensor", tags=(torch.Tag.pointwise,))
            for key in ("CPU", "Meta"):
                if name != "composite":
                    library.impl(name, lambda x: x @ x.T, key)
        library.impl("composite", lambda x: x @ x.T, "CompositeImplicitAutograd")
        yield torch.ops.neuroconv_test


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", ["gather", "mm", "relu"])
def test_an_operator_of_another_namespace_has_no_rule_whatever_its_name(
    foreign: Any, name: str, device: str
) -> None:
    model = Call(lambda x: getattr(foreign, name)(x) + x @ x.T)
    counts = count_exact(model, flat, device=device)
    assert counts.uncounted == {f"neuroconv_test.{name}.default": 1}
    assert counts.macs == {"matmul": 6 * 6 * 10}
    with pytest.raises(ValueError, match=rf"neuroconv_test\.{name}\.default \(it has no rule\)"):
        count_exact(model, flat, device=device, strict=True)
    alone = Call(getattr(foreign, name))
    assert count_closed_form(alone, flat, device=device).hidden == ()
    assert measure_traffic(alone, flat, device=device).forward.read_bytes == 4 * 6 * 10


def test_a_composite_operator_and_one_without_tensors_are_seen_through(foreign: Any) -> None:
    def function(x: Tensor) -> Any:
        with torch.profiler.record_function("part"):
            return foreign.composite(x)

    assert count(function, flat, strict=True).macs == {"matmul": 6 * 6 * 10}


def test_a_kernel_that_calls_another_is_seen_through_to_its_end(
    foreign: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {
        foreign.gather.default: lambda x: F.linear(foreign.relu(x), x),
        foreign.relu.default: lambda x: x + 1,
    }
    monkeypatch.setattr("neuroconv.flops.calls.plain_operators", plain.get)
    assert count(foreign.gather, flat, strict=True).macs == {"matmul": 6 * 6 * 10}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.linalg.eigvalsh(x @ x.T), r"_linalg_eigh\S* \(a factorisation"),
        (lambda x: torch.sparse.mm(x.to_sparse(), x.T),
         r"_sparse_addmm\S* \(the shape of a sparse"),
        (lambda x: x.to_sparse() + x.to_sparse(), r"aten\.add\.Tensor \(the shape of a sparse"),
        (lambda x: x.unique(), r"_unique2\S* \(its work depends on values"),
    ],
)  # fmt: skip
def test_strict_says_why_an_operator_is_not_counted(function: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        count(function, flat, device="cpu", strict=True)


def test_products_of_integers_stand_apart() -> None:
    whole = torch.ones(32, 16, dtype=torch.int8)
    products: tuple[tuple[str, Callable[..., object]], ...] = (
        ("aten.mm.default", lambda x: x.long() @ x.long().T),
        ("aten.bmm.default", lambda x: torch.einsum("ik,jk->ij", x.long(), x.long())),
        ("aten._int_mm.default", lambda x: torch._int_mm(x, x.T)),
    )
    for operator, function in products:
        for device in ("meta", "cpu"):
            counts = count(function, whole, device=device, strict=True)
            assert counts.integers == {operator: 32 * 32 * 16}
            assert (counts.mac, counts.flop, counts.operators) == (0, 0, {})


def test_a_frozen_model_has_no_backward_pass() -> None:
    model = nn.Linear(3, 5).requires_grad_(False)
    with pytest.raises(ValueError, match="no output requires a gradient"):
        count_exact(model, torch.zeros(2, 3), backward=True)


# Six maps of 4 x 4 from four, in two groups or one; each tap of a map is mixed of four neighbours.
@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_deformable_convolution(groups: int, masked: bool, device: str) -> None:
    x, offset, weight = leaf(2, 4, 6, 6), leaf(2, 18, 4, 4), leaf(6, 4 // groups, 3, 3)
    masks = (leaf(2, 9, 4, 4),) if masked else ()
    counts = count(
        lambda x, offset, weight, mask=None: deform_conv2d(x, offset, weight, mask=mask),
        x, offset, weight, *masks, device=device, backward=True, strict=True,
    )  # fmt: skip
    products, samples = 2 * 16 * 6 * 4 // groups * 9, 2 * 16 * 4 * 9
    assert counts.macs == {"convolution": products}
    assert counts.flops == {"pooling": 4 * samples} | ({"pointwise": samples} if masked else {})
    assert backward_of(counts).macs == {"convolution": 2 * products}


def halves(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.bfloat16, requires_grad=True)


# Three groups of 8, 8 and 16, of rows, of columns, or of terms of the sum.
GROUPED: dict[str, tuple[tuple[Tensor, ...], int]] = {
    "rows": ((halves(32, 16), halves(3, 16, 8)), 32 * 16 * 8),
    "columns": ((halves(3, 16, 8), halves(8, 32)), 16 * 8 * 32),
    "terms": ((halves(16, 32), halves(32, 8)), 16 * 32 * 8),
    "batch": ((halves(3, 32, 16), halves(3, 16, 8)), 3 * 32 * 16 * 8),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("kind", GROUPED)
def test_grouped_products(kind: str, device: str) -> None:
    operands, mac = GROUPED[kind]
    ends = None if kind == "batch" else torch.tensor([8, 16, 32], dtype=torch.int32)

    def function(a: Tensor, b: Tensor) -> Tensor:
        return torch._grouped_mm(a, b, offs=None if ends is None else ends.to(a.device))

    counts = count(function, *operands, device=device, backward=True, strict=True)
    assert counts.macs == {"matmul": mac}
    assert backward_of(counts).macs == {"matmul": 2 * mac}


def test_what_costs_nothing_says_why() -> None:
    counts = count(lambda x: torch.cat([x.t(), x.t()]).clone().argsort() * 2, flat.clone())
    assert counts.zero["aten.t.default"] == "a view: no element moves"
    assert counts.zero["aten.cat.default"] == "moves elements"
    assert counts.zero["aten.clone.default"] == "copies, or changes the type"
    assert counts.zero["aten.mul.Tensor"] == "integers or Booleans alone"
    assert set(counts.flops) == {"sorting"}


def test_no_operator_has_two_entries() -> None:
    assert set(RULES) & set(ZERO) == set()
    assert all(entry["rule"].partition(": ")[2] for entry in DATA["exact"])
    reasons = [name for names in DATA["uncounted"].values() for name in names.split()]
    assert {*RULES, *ZERO}.isdisjoint(reasons)
    aten = torch.ops.aten
    names = [name for name in (*RULES, *ZERO, *reasons) if "::" not in name]
    lost = [n for n in names if not (hasattr(aten, n) or hasattr(aten, f"{n}_"))]
    assert lost == []
