"""fvcore beside the exact counter: equal on every contraction; and fvcore as it comes."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from neuroconv.flops import analyse_fvcore, count_exact, count_fvcore
from neuroconv.flops.fvcore_handles import HANDLES, contracts_nothing
from tests.flops.calling import Call

x, mask = torch.rand(2, 3, 4, 6, 8), torch.zeros(5, 7)
q, k = torch.rand(2, 3, 5, 4), torch.rand(2, 3, 7, 4)
matrix, vector, film = x[0, 0, :, :4, :4], x[0, 0, 0, 0, :4], torch.rand(1, 2, 4, 6, 6)
square = matrix[0]


def stock_fvcore(model: nn.Module, *inputs: Tensor) -> Any:
    """The analysis of fvcore as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis
    analysis = FlopCountAnalysis(model.eval(), inputs).unsupported_ops_warnings(False)
    return analysis.uncalled_modules_warnings(False)


# Contractions that fvcore as it comes leaves out or miscounts: a call, its inputs, what is right,
# and what fvcore says (None: it fails).
TRAPS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], dict[str, int], int | None]] = {
    "complex_product": (torch.mm, (square + 1j, square + 1j), {"matmul": 4 * 64}, 64),
    "broadcast_product": (torch.matmul, (x[0, :, :1], x[0].mT), {"matmul": 3 * 4 * 6 * 8 * 6},
                          3 * 6 * 8 * 6),
    "matrix_and_vector": (torch.matmul, (square, vector), {"matmul": 16}, None),
    "padding_same": (
        lambda t, w: F.conv3d(t, w, padding="same"), (x, torch.rand(5, 3, 3, 3, 3)),
        {"convolution": 2 * 4 * 6 * 8 * 5 * 3 * 27}, 0),
    "attention": (F.scaled_dot_product_attention, (q, k, k), {"matmul": 6 * 35 * 8}, 0),
    "transform": (torch.fft.rfft, (x,), {"fft": 2 * 3 * 4 * 6 * 30}, 0),
    # fvcore rounds this one to three digits.
    "einsum": (lambda p, q: torch.einsum("bij,cjk->bcik", p, q),
               (torch.zeros(7, 11, 13), torch.zeros(5, 13, 17)), {"matmul": 7 * 5 * 11 * 13 * 17},
               85_100),
}  # fmt: skip


@pytest.mark.parametrize("name", TRAPS)
def test_traps_of_fvcore_as_it_comes(name: str) -> None:
    function, inputs, expected, stock_total = TRAPS[name]
    counts, stock = analyse_fvcore(Call(function), inputs)
    assert counts.macs == count_exact(Call(function), inputs).macs == expected
    assert counts.uncounted == {}
    assert stock.total == stock_total
    if stock_total is None:
        assert list(stock.failures) == ["aten::matmul"]
    else:
        assert stock_fvcore(Call(function), *inputs).total() == stock_total


# An operator that a trace records, with arguments.
CALLS: dict[str, tuple[Any, ...]] = {
    "_convolution": (film, film[:, :, :3, :3, :3], None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3,
                     1, False, False, False, False),
    "_convolution_mode": (film, film[:, :, :3, :3, :3], None, [1, 1, 1], "same", [1, 1, 1], 1),
    "addbmm": (square, matrix, matrix), "addmm": (square, square, square),
    "addmv": (vector, square, vector), "baddbmm": (matrix, matrix, matrix),
    "bilinear": (square, square, matrix, None), "bmm": (matrix, matrix),
    "dot": (vector, vector), "einsum": ("ij,kj->ik", [square, square]), "inner": (square, square),
    "linear": (square, square), "matmul": (matrix, matrix), "mm": (square, square),
    "mv": (square, vector), "scaled_dot_product_attention": (q, k, k),
    "tensordot": (square, square, [0], [1]), "vdot": (vector, vector),
}  # fmt: skip


RECURRENT_OPERATORS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}  # tested as layers, below
OPERATORS = sorted({name.removeprefix("aten::") for name in HANDLES} - RECURRENT_OPERATORS)


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_handle_counts_as_the_exact_counter(operator: str) -> None:
    arguments = CALLS.get(operator.rstrip("_"), (square,))
    tensors = tuple(a for a in arguments if isinstance(a, Tensor)) or (square, square)

    def call(*inputs: Tensor) -> Any:
        remaining = iter(inputs)
        if operator == "einsum":
            return torch.ops.aten.einsum(arguments[0], list(inputs))
        filled = [next(remaining) if isinstance(a, Tensor) else a for a in arguments]
        return getattr(torch.ops.aten, operator)(*filled)

    counts = count_fvcore(Call(call), tensors)
    assert counts.macs == count_exact(Call(call), tensors).macs
    assert (list(counts.macs), counts.uncounted) == ([HANDLES[f"aten::{operator}"].family], {})


def test_every_name_is_an_operator_of_a_trace() -> None:
    schemas = {schema.name for schema in torch._C._jit_get_all_schemas()}
    assert set(HANDLES) <= schemas
    assert not any(map(contracts_nothing, HANDLES))
    for name in ("aten::relu_", "aten::view", "aten::softmax", "aten::dropout_", "aten::cat"):
        assert contracts_nothing(name), name
    for name in ("aten::linalg_qr", "aten::stft", "aten::cdist", "neuroconv_test::twice"):
        assert not contracts_nothing(name), name


IMAGE, VIDEO = (1, 3, 224, 224), (1, 3, 16, 112, 112)
SLOW = [
    pytest.param(name, VIDEO if name == "r3d_18" else IMAGE, marks=pytest.mark.slow)
    for name in ("resnet18", "alexnet", "convnext_tiny", "vit_b_16", "r3d_18")
]


@pytest.mark.parametrize(("name", "shape"), [("mobilenet_v3_small", IMAGE), *SLOW])
def test_networks_of_torchvision(name: str, shape: tuple[int, ...]) -> None:
    """Each difference between fvcore as it comes and the exact counter has a cause."""
    model, x = torchvision.models.get_model(name, weights=None), torch.empty(shape)
    exact, (fvcore, stock) = count_exact(model, x), analyse_fvcore(model, x)
    assert exact.macs == fvcore.macs
    assert exact.mac > 50_000_000
    assert exact.uncounted == fvcore.uncounted == {}
    # Attention is a contraction that it has no handle for: 12 layers and heads, 197 patches, 64
    # features.
    attention = 12 * 12 * 197 * 197 * 2 * 64 if name == "vit_b_16" else 0
    assert stock.unsupported["aten::scaled_dot_product_attention"] == (12 if attention else 0)
    norms = ("batch_norm", "layer_norm", "adaptive_avg_pool2d")  # elements, by weights of its own
    contractions = sum(n for op, n in stock.operators.items() if op not in norms)
    assert contractions == exact.mac - attention
    if "layer_norm" not in stock.operators:  # batch norms: two an element, as here
        assert stock.operators["batch_norm"] == exact.flops.get("normalisation", 0)


def test_fvcore_as_it_comes_is_what_a_user_gets() -> None:
    model, image = torchvision.models.resnet18(), torch.zeros(1, 3, 64, 64)
    counts, stock = analyse_fvcore(model, image)
    analysis = stock_fvcore(model, image)
    assert stock.total == analysis.total() > counts.mac
    assert stock.operators == analysis.by_operator()
    assert (
        stock.unsupported == analysis.unsupported_ops() == {"aten::add_": 8, "aten::max_pool2d": 1}
    )
    exact = count_exact(model, image)  # by module
    assert exact.modules["layer1.0.conv1"] == 64 * 64 * 9 * 16 * 16
    contracting = {path: mac for path, mac in counts.modules.items() if mac}
    assert {path: mac for path, mac in exact.modules.items() if mac} == contracting


@torch.jit.script
def scripted(t: Tensor, w: Tensor) -> Tensor:
    for _ in range(t.size(0)):
        t = t @ w
    return t


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, t: Tensor) -> Tensor:
        return t @ t.T


def test_fvcore_refuses_what_it_cannot_see() -> None:
    with pytest.raises(ValueError, match=r"cannot see inside prim::CallFunction"):
        count_fvcore(Call(lambda t: scripted(t, t)), square)
    with pytest.raises(ValueError, match=r"cannot see inside prim::PythonOp\.Opaque"):
        count_fvcore(Call(Opaque.apply), square)
    with torch.device("meta"):
        model = nn.Linear(3, 4)
    with pytest.raises(ValueError, match="not meta or fake"):
        count_fvcore(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="device='cpu' or 'cuda'"):
        count_fvcore(nn.Linear(3, 4), torch.zeros(1, 3), device="meta")


class Packed(nn.Sequential):
    """A recurrent layer that runs on sequences of 4, 3 and 1 steps, without their padding."""

    def forward(self, t: Tensor) -> Tensor:
        lengths = torch.tensor([4, 3, 1])
        return self[0](pack_padded_sequence(t, lengths, batch_first=True))[0].data


RECURRENT = {
    "lstm": nn.LSTM(5, 4),
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
    counts = count_fvcore(model, t)
    assert (counts.macs, counts.uncounted) == ({"matmul": steps * weights}, {})


def test_attention_with_a_mask() -> None:
    scores = 2 * 3 * 5 * 7
    for options, scalings in (({}, 1), ({"is_causal": True}, 1), ({"attn_mask": mask}, 2)):
        model = Call(partial(F.scaled_dot_product_attention, **options))
        exact = count_exact(model, (q, k, k), device="cpu")
        assert count_fvcore(model, (q, k, k)).macs == exact.macs == {"matmul": scores * 8}
        assert exact.flops == {"normalisation": 5 * scores, "pointwise": scalings * scores}


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*TRAPS, *RECURRENT])
def test_cuda_counts_as_the_cpu(name: str) -> None:
    model, inputs = RECURRENT.get(name), (torch.rand(3, 4, 5),)
    if model is None:
        model, inputs = Call(TRAPS[name][0]), TRAPS[name][1]
    on_cpu, on_cuda = count_fvcore(model, inputs), count_fvcore(model, inputs, device="cuda")
    assert (on_cuda.macs, on_cuda.uncounted) == (on_cpu.macs, on_cpu.uncounted)
