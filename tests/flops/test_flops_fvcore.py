"""fvcore's handles: each trap of fvcore as it comes, and each handle beside the exact counter."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from neuroconv.flops import Counts, count_exact, count_fvcore
from neuroconv.flops.fvcore_adapter import fvcore_rules
from neuroconv.flops.rules import CONTRACTIONS, OTHERS
from tests.flops.calling import Call


def amounts(counts: Counts) -> dict[str, int]:
    return {**counts.macs, **counts.flops}


def stock_fvcore(model: nn.Module, inputs: tuple[Tensor, ...]) -> float | None:
    """The total of fvcore as it comes; None if it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis
    inputs = tuple(given.clone() for given in inputs)  # it runs what works in place
    analysis = FlopCountAnalysis(model.eval(), inputs).unsupported_ops_warnings(False)
    try:
        return float(analysis.uncalled_modules_warnings(False).total())
    except (AssertionError, IndexError, TypeError):
        return None


aten = torch.ops.aten
x, few, mask = torch.rand(2, 3, 4, 6, 8), torch.tensor([0, 1, 1]), torch.rand(2, 3, 4, 6, 8) > 0.5
n, places = x.numel(), torch.zeros_like(x).long()  # n = 1,152
Trap = tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, int], int | None]
# What fvcore as it comes leaves out or miscounts: a call, its inputs, what is right, and what
# fvcore says (None: it fails).
TRAPS: dict[str, Trap] = {
    "add": (torch.add, (x, x), {"pointwise": n}, 0),
    "sub": (torch.sub, (x, x), {"pointwise": n}, 0),
    "mul": (torch.mul, (x, x), {"pointwise": n}, 0),
    "sigmoid": (torch.sigmoid, (x,), {"pointwise": n}, 0),
    "sum": (torch.sum, (x,), {"reduction": n}, 0),
    "cumsum": (partial(torch.cumsum, dim=1), (x,), {"reduction": n}, 0),
    "max_pool3d": (partial(F.max_pool3d, kernel_size=2, stride=1), (x,),
                   {"pooling": 8 * 2 * 3 * 3 * 5 * 7}, 0),
    # The following it ignores without listing them.
    "relu": (torch.relu, (x,), {"pointwise": n}, 0),
    "relu_": (torch.relu_, (x,), {"pointwise": n}, 0),
    "clamp": (partial(torch.clamp, min=0.5), (x,), {"pointwise": n}, 0),
    "max": (torch.max, (x,), {"reduction": n}, 0),
    "max_along_an_axis": (lambda t: t.max(3)[0], (x,), {"reduction": n}, 0),
    "max_of_two": (torch.max, (x, x), {"pointwise": n}, 0),
    "gt": (lambda t: t > 0.5, (x,), {"pointwise": n}, 0),
    "eq": (torch.eq, (x, x), {"pointwise": n}, 0),
    "floor_divide": (lambda t: t // 2, (x,), {"pointwise": n}, 0),
    "remainder": (lambda t: t % 2, (x,), {"pointwise": n}, 0),
    "masked_fill": (lambda t, m: t.masked_fill(m, 0.0), (x, mask), {"pointwise": n}, 0),
    "constant_pad_nd": (partial(F.pad, pad=(1, 2)), (x,), {}, 0),
    "index": (lambda t, i: t[:, i], (x, few), {}, 0),
    "gather": (lambda t, i: t.gather(0, i), (x, places), {}, 0),
    "dropout": (partial(F.dropout, training=True), (x,), {"pointwise": 2 * n, "random": n}, 0),
    "dropout_of_none": (partial(F.dropout, p=0.0, training=True), (x,), {}, 0),
    "dropout_of_all": (partial(F.dropout, p=1.0, training=True), (x,), {"pointwise": n}, 0),
    "dropout3d": (partial(F.dropout3d, training=True), (x,),
                  {"pointwise": 6 + n, "random": 6}, 0),
    "alpha_dropout": (partial(F.alpha_dropout, training=True), (x,),
                      {"pointwise": 6 * n, "random": n}, 0),
    "feature_alpha_dropout": (partial(F.feature_alpha_dropout, training=True), (x,),
                              {"pointwise": 4 * 6 + 2 * n, "random": 6}, 0),
    # Random numbers, and adding where an index says.
    "poisson": (torch.poisson, (x,), {"random": n}, 0),
    "bernoulli": (torch.bernoulli, (x,), {"random": n}, 0),
    "bernoulli_": (lambda t: t.bernoulli_(0.3), (x,), {"random": n}, 0),
    "normal_": (lambda t: t.normal_(), (x,), {"random": n}, 0),
    "rand": (lambda t: t * torch.rand(6, 8, device=t.device), (x,),
             {"pointwise": n, "random": 48}, 0),
    "randn_like": (torch.randn_like, (x,), {"random": n}, 0),
    "multinomial": (lambda t: t.flatten().multinomial(7), (x,), {"random": 7}, 0),
    "randint": (lambda t: torch.randint(3, t.shape, device=t.device), (x,), {}, 0),
    "index_add": (lambda t, i: t.index_add(1, i, t), (x, few), {"scatter": n}, 0),
    "scatter_add": (lambda t, i: t.scatter_add(0, i, t), (x, places), {"scatter": n}, 0),
    "index_put": (lambda t, i: t.index_put((i, i), t.new_zeros(4, 6, 8)), (x, few[:2]), {}, 0),
    "index_put_accumulating": (
        lambda t, i: aten.index_put(t, [i, None, i], t.new_zeros(2, 3, 6, 8), accumulate=True),
        (x, few[:2]), {"scatter": 2 * 3 * 6 * 8}, 0),
    "sort": (partial(torch.sort, dim=3), (x,), {"sorting": 3 * n}, 0),
    # Sizes and numbers that it takes wrongly.
    "instance_norm_of_running_statistics": (
        lambda t, mean, var: F.instance_norm(t, mean, var, use_input_stats=False),
        (x, torch.zeros(3), torch.ones(3)), {"normalisation": 2 * n}, 4 * n),
    "nearest_neighbour": (partial(F.interpolate, scale_factor=2), (x[0],), {}, 2 * n),
    "complex_product": (torch.mm, (x[0, 0, 0] + 1j, x[0, 0, 0].T + 1j),
                        {"matmul": 4 * 6 * 8 * 6}, 6 * 8 * 6),
    "broadcast_product": (torch.matmul, (x[0, :, :1], x[0].mT), {"matmul": 3 * 4 * 6 * 8 * 6},
                          3 * 6 * 8 * 6),
    "matrix_and_vector": (torch.matmul, (x[0, 0, 0], x[0, 0, 0, 0]), {"matmul": 48}, None),
    "padding_same": (
        lambda t, w: F.conv3d(t, w, padding="same"), (x, torch.rand(5, 3, 3, 3, 3)),
        {"convolution": 2 * 4 * 6 * 8 * 5 * 3 * 27}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_traps(name: str) -> None:
    function, inputs, expected, stock = TRAPS[name]
    for counts in (count_fvcore(Call(function), inputs), count_exact(Call(function), inputs)):
        assert amounts(counts) == expected, counts.counter
        assert counts.uncounted == {}, counts.counter
    assert stock_fvcore(Call(function), inputs) == stock, "fvcore itself has changed"


def test_a_number_added_at_many_places_is_counted_at_each() -> None:
    scalar = Call(lambda t, i: t.index_put((i, i), t.new_ones(()), accumulate=True))
    for count in (count_fvcore, count_exact):
        assert count(scalar, (x, few[:2])).flops == {"scatter": 2 * 4 * 6 * 8}
    fewer = Call(lambda t, i: t.scatter_add(0, i[:, :, :2], t))
    for count in (count_fvcore, count_exact):
        assert count(fewer, (x, places)).flops == {"scatter": n // 2}


def test_fvcore_drops_no_handle_for_none() -> None:
    """`set_op_handle(operator, None)` keeps a handle that is set: ours replaces fvcore's own."""
    norm = nn.BatchNorm3d(3).eval()
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(norm, x).unsupported_ops_warnings(False)
    assert analysis.set_op_handle("aten::batch_norm", None).total() == 2 * n
    plain = nn.BatchNorm3d(3, affine=False)
    assert count_fvcore(plain, x).flops == {"normalisation": 2 * n}
    assert stock_fvcore(plain, (x,)) == n


class Restless(nn.Module):
    """Moves running statistics, a buffer, its input and every random generator."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.register_buffer("calls", torch.zeros(()))
        self.add_module("dropout", nn.Dropout())

    def forward(self, t: Tensor) -> Tensor:
        self.calls += 1
        return self.dropout(self.norm(t.mul_(torch.rand_like(t))))


def test_nothing_moves() -> None:
    model, given = Restless().train(), x.clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    counts = count_fvcore(model, given)
    assert counts.flops == {"pointwise": n + 1, "normalisation": 2 * n, "random": n}  # 1: calls
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(given, x)
    assert model.training
    assert model.norm.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@torch.jit.script
def scripted(t: Tensor, w: Tensor) -> Tensor:
    for _ in range(t.size(0)):
        t = t @ w
    return t


def test_a_script_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot see inside prim::CallFunction"):
        count_fvcore(Call(lambda t: scripted(t, t)), x[0, 0, 0, :, :6])


class Packed(nn.Module):
    """A recurrent layer that runs on sequences of 4, 3 and 1 steps, without their padding."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, t: Tensor) -> Tensor:
        lengths = torch.tensor([4, 3, 1])
        return self.layer(pack_padded_sequence(t, lengths, batch_first=True))[0].data


CELL_FLOP = {nn.LSTM: 13, nn.GRU: 10, nn.RNN: 2}
RECURRENT = {
    "lstm": nn.LSTM(5, 4),
    "lstm_without_bias": nn.LSTM(5, 4, bias=False),
    "lstm_both_ways": nn.LSTM(5, 4, 2, bidirectional=True),
    "lstm_projected": nn.LSTM(5, 4, 2, bidirectional=True, proj_size=3),
    "gru": nn.GRU(5, 4, 3, batch_first=True),
    "gru_both_ways": nn.GRU(5, 4, bidirectional=True, bias=False),
    "rnn_tanh": nn.RNN(5, 4, 2),
    "rnn_relu": nn.RNN(5, 4, nonlinearity="relu"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("kind", ["padded", "packed", "one"])
def test_recurrent_layers(name: str, kind: str) -> None:
    layer, t = RECURRENT[name], torch.rand(3, 4, 5)
    model, t, steps = {
        "padded": (layer, t, 12), "packed": (Packed(layer), t, 8), "one": (layer, t[0], 4)
    }[kind]  # fmt: skip
    weights = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    cells = layer.num_layers * (1 + layer.bidirectional)
    expected = {
        "matmul": steps * weights,
        "pointwise": steps * cells * layer.hidden_size * CELL_FLOP[type(layer)],
    }
    counts = count_fvcore(model, t)
    assert (amounts(counts), counts.uncounted) == (expected, {})
    if kind == "padded":  # torch takes the layer apart for the exact counter, cell by cell
        assert amounts(count_exact(model, t)) == expected


@pytest.mark.parametrize("cell", [nn.LSTMCell(5, 4), nn.GRUCell(5, 4), nn.RNNCell(5, 4)])
def test_recurrent_cells(cell: nn.RNNCellBase) -> None:
    counts = count_fvcore(cell, x[0, 0, 0, :, :5])
    weights = sum(p.numel() for p in cell.parameters() if p.dim() == 2)
    flop = {nn.LSTMCell: 13, nn.GRUCell: 10, nn.RNNCell: 2}[type(cell)]
    assert amounts(counts) == {"matmul": 6 * weights, "pointwise": 6 * 4 * flop}
    assert amounts(count_exact(cell, x[0, 0, 0, :, :5])) == amounts(counts)


def test_attention_with_a_mask() -> None:
    q, k = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 7, 4)
    scores = 2 * 3 * 5 * 7
    plain = {"matmul": scores * 8, "normalisation": 5 * scores}
    for more, each in (
        ({}, 1), ({"is_causal": True}, 1), ({"attn_mask": torch.zeros(5, 7)}, 2)
    ):  # fmt: skip
        model = Call(partial(F.scaled_dot_product_attention, **more))
        for counts in (count_fvcore(model, (q, k, k)), count_exact(model, (q, k, k), device="cpu")):
            assert amounts(counts) == plain | {"pointwise": each * scores}, counts.counter


def test_the_table_of_rules_holds_all_that_fvcore_knows() -> None:
    from fvcore.nn.flop_count import _DEFAULT_SUPPORTED_OPS
    from fvcore.nn.jit_analysis import _IGNORED_OPS

    rules = fvcore_rules()
    assert {*_DEFAULT_SUPPORTED_OPS, *_IGNORED_OPS} <= set(rules)
    assert set(rules) <= {schema.name for schema in torch._C._jit_get_all_schemas()}
    for operator, text in rules.items():
        family, _, how = text.partition(": ")
        assert family in (*CONTRACTIONS, *OTHERS, "zero"), operator
        assert how, operator
    assert rules["aten::relu"] == "pointwise: one an output element, addcmul two; " + (
        "complex: add 2, multiply 6, other 2"
    )
    assert rules["aten::gather"] == "zero: moves elements"


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*TRAPS, *RECURRENT])
def test_cuda_counts_as_the_cpu(name: str) -> None:
    model, inputs = (
        (Call(TRAPS[name][0]), TRAPS[name][1])
        if name in TRAPS
        else (RECURRENT[name], (torch.rand(3, 4, 5),))
    )
    on_cpu, on_cuda = count_fvcore(model, inputs), count_fvcore(model, inputs, device="cuda")
    assert (amounts(on_cuda), on_cuda.uncounted) == (amounts(on_cpu), on_cpu.uncounted)
