"""The arguments of a counted call: nested, by keyword, of any dtype; what is refused, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from neuroconv import flops
from neuroconv.flops import COUNTERS, Peak, count_exact, count_fvcore, measure_traffic, profile
from neuroconv.flops.inputs import as_inputs
from neuroconv.flops.machine import roofline

x, tokens, mask = torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3) > 0


class Pair(NamedTuple):
    left: Tensor
    right: Any


class Reader(nn.Module):
    """A linear layer of 3 inputs and 4 outputs on the tensor that a function takes from a call."""

    def __init__(self, read: Callable[..., Any]) -> None:
        super().__init__()
        self.read, self.linear = read, nn.Linear(3, 4)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return {"y": [self.linear(self.read(*args, **kwargs))], "scale": None}


# By name: how a model reads its call, the inputs, the keywords, and the bytes of the tensors.
CALLS: dict[str, tuple[Callable[..., Any], Any, dict[str, Any], int]] = {
    "a_tensor": (lambda t: t, x, {}, 24),
    "a_tuple_is_the_positional_arguments": (lambda a, b: a * b, (x, x.clone()), {}, 48),
    "a_dictionary": (lambda d: d["x"], {"x": x, "n": 3}, {}, 24),
    "a_list": (lambda tensors: tensors[1], [x, x.clone()], {}, 48),
    "keywords_alone": (lambda *, t, m: t * m["mask"], (), {"t": x, "m": {"mask": mask}}, 24 + 6),
    "nothing_and_numbers": (lambda t, m, scale: t * scale, (x, None), {"scale": 0.5}, 24),
    "nested": (lambda d: d["a"][1][0].left, ({"a": (None, [Pair(x, 2)])},), {}, 24),
    "a_named_tuple_is_one_argument": (lambda pair: pair.left, Pair(x, None), {}, 24),
    "token_ids": (lambda ids: ids.float(), tokens, {}, 48),
    "half_and_bool": (lambda t, m: t.float() * m, (x.half(), mask), {}, 12 + 6),
    "a_scalar_tensor": (lambda s, t: s * t, (torch.tensor(2.0), x), {}, 4 + 24),
    "the_same_tensor_twice": (lambda a, b: a if a is b else a @ b, (x, x), {}, 24),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_call_is_profiled(name: str) -> None:
    read, inputs, kwargs, size = CALLS[name]
    model, mac = Reader(read), 2 * 3 * 4
    model(*(inputs if type(inputs) is tuple else (inputs,)), **kwargs)
    record = profile(model, inputs, kwargs=kwargs)
    skipped = {"axons"} if name == "token_ids" else set()  # integers have no values to trace
    assert (record.batch, record.agree, {*record.skipped}) == (2, True, skipped)
    assert [record.counts[counter].mac for counter in COUNTERS] == [mac] * 3
    assert record.counts["fvcore"].modules == {"": mac, "linear": mac}
    assert record.doubled.mac == 2 * mac
    assert (record.traffic.input_bytes, record.traffic.output_bytes) == (size, 2 * 4 * 4)


def test_every_function_takes_keywords(monkeypatch: pytest.MonkeyPatch, machine: Peak) -> None:
    model, keywords = Reader(lambda t, *, m: t * m[0]), {"m": [mask]}
    monkeypatch.setattr(roofline, "machine_peak", lambda device: machine)
    assert count_exact(model, x, kwargs=keywords).mac == 24
    assert flops.count_closed_form(model, x, kwargs=keywords).counts.mac == 24
    assert count_fvcore(model, x, kwargs=keywords).mac == 24
    traffic = measure_traffic(model, x, kwargs=keywords)
    assert traffic.input_bytes == 24 + 6
    assert flops.firing_shares(model, x, kwargs=keywords)["linear"].output_elements == 8
    assert flops.measure_time(model, x, kwargs=keywords, seconds=1e-9, backward=True).seconds > 0
    assert roofline.measure(model, x, "cpu", 24, traffic, kwargs=keywords).placement.flop == 24


def test_the_copy_of_a_call_has_its_structure_and_nothing_of_its_memory() -> None:
    items = as_inputs((x, {"t": [x, tokens]}), {"mask": mask, "n": 1})
    doubled = items.doubled()
    assert doubled.args[0] is doubled.args[1]["t"][0]
    assert [tuple(t.shape) for t in doubled.tensors] == [(4, 3)] * 3
    assert doubled.kwargs["n"] == 1
    assert str(items) == (
        "float32[2, 3], [1]['t'][0] float32[2, 3], [1]['t'][1] int64[2, 3], "
        "['mask'] bool[2, 3], ['n'] 1"
    )
    packed = pack_padded_sequence(torch.rand(2, 5, 3), torch.tensor([5, 2]), batch_first=True)
    assert count_exact(nn.LSTM(3, 4), packed, device="cpu").mac == 7 * 4 * 4 * (3 + 4)
    with pytest.raises(ValueError, match=r"inputs \(\[0\].data float32\[7, 3\], "):
        count_exact(nn.LSTM(3, 4), packed)  # whose lengths are on the CPU always


@dataclass
class Output:
    y: Tensor


def test_an_output_in_a_dataclass_is_an_output() -> None:
    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return {"output": Output(super().forward(x))}

    record = profile(Layer(3, 4), x)
    assert (record.traffic.output_bytes, record.skipped) == (2 * 4 * 4, {})


def test_tokens_are_looked_up_on_a_real_device_too() -> None:
    """Meta tensors become zeros there, which every table has."""
    table = nn.Embedding(5, 3)
    ids = torch.empty(2, 7, dtype=torch.int64, device="meta")
    record = profile(table, ids, device="cpu")
    assert record.traffic.input_bytes == 2 * 7 * 8
    assert record.agree is True


WRONG: dict[str, tuple[Any, Any, Any, str]] = {
    "a_string": ("x", None, TypeError, r"inputs is a str, 'x'; expected tensors, None"),
    "inside": ((x, {"mask": "y"}), None, TypeError, r"inputs\[1\]\['mask'\] is a str, 'y'"),
    "keyword": (x, {"m": [1, object]}, TypeError, r"kwargs\['m'\]\[1\] is a type"),
    "no_names": (x, {3: x}, TypeError, r"kwargs=\{3: tensor[^;]*; expected a table"),
    "no_mapping": (x, [x], TypeError, "expected a table"),
    "array": (x.numpy(), None, TypeError, "inputs is a ndarray"),
    "nothing": (None, None, TypeError, "inputs=None and kwargs=None hold no tensor"),
    "numbers": ([[1.0, 2.0]], None, TypeError, r"inputs=\[\[1.0, 2.0\]\] .* hold no tensor"),
    "scalar": (torch.tensor(1.0), None, ValueError, r"got shape \(\)\. Give a batch of one"),
    "empty": ((None, torch.zeros(0, 3)), None, ValueError, r"got shape \(0, 3\)"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("count", [profile, count_exact, count_fvcore, measure_traffic])
def test_a_wrong_argument_is_named(name: str, count: Callable[..., Any]) -> None:
    inputs, kwargs, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        count(nn.Linear(3, 4), inputs, kwargs=kwargs)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_model_that_fails_on_its_inputs_is_quoted_with_them(device: str) -> None:
    for inputs, message in (
        ((x, 3), r"inputs \(float32\[2, 3\], 3\) failed: TypeError: .*positional argument"),
        ({"a": x}, r"inputs \(\[0\]\['a'\] float32\[2, 3\]\) failed: TypeError: .* not dict"),
        (x.mT, r"inputs \(float32\[3, 2\]\) failed: RuntimeError: "),
        # Meta would multiply them.
        (x.double(), r".* failed: TypeError: aten.addmm.* of torch.float32, torch.float64; expec"),
    ):
        for job in (profile, count_exact, flops.count_closed_form, measure_traffic):
            with pytest.raises(ValueError, match=f"the run on '{device}' with {message}"):
                job(nn.Linear(3, 4), inputs, device=device)
