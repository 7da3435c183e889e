"""Random calls of random modules: counted as by hand, or refused by a message that names them."""

import re
import warnings
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroconv import Granule, GranuleConv2d
from neuroconv.flops import COUNTERS, profile

WRONG = ["text", b"bytes", np.ones((2, 3)), object(), len, range(3), {1, 2}]
OTHERS = st.sampled_from([None, 0, 2, 0.5, True, torch.zeros(2, 3), torch.zeros(()), *WRONG])
LAYERS = st.sampled_from([
    *[lambda: nn.Linear(3, 3)] * 3, lambda: nn.Linear(3, 3, dtype=torch.float16),
    lambda: nn.Linear(3, 3, dtype=torch.complex64), *[nn.ReLU] * 2, lambda: nn.LayerNorm(3),
    lambda: nn.BatchNorm1d(3), lambda: nn.Softmax(-1), lambda: nn.Embedding(5, 3),
    lambda: nn.Sequential(nn.GRU(3, 3, batch_first=True)), lambda: Granule(3, 3),
    lambda: GranuleConv2d(3, 3, (1, 2), time_steps=2, wiring="claw"),
])  # fmt: skip
DTYPES = [torch.float32] * 4 + [torch.float16, torch.complex64, torch.int64, torch.bool]
CHANGES = [Tensor.contiguous] * 6 + [Tensor.to_sparse, lambda x: x.to("meta"), lambda x: x.mT.mT]


class Reader(nn.Sequential):
    """Layers on the value at a path within the argument `x`; the result lies in containers."""

    path: tuple[Any, ...] = ()

    def forward(self, x: Any, other: Any = None) -> Any:
        for key in self.path:
            x = x[key]
        return {"y": [super().forward(x)], "other": other}


@st.composite
def calls(draw: st.DrawFn) -> tuple[nn.Module, Any, Any, Tensor]:
    """Returns a module, inputs, keywords, and the tensor that the module reads."""
    model = Reader(*(layer() for layer in draw(st.lists(LAYERS, min_size=1, max_size=3))))
    model.path = tuple(draw(st.lists(st.sampled_from([0, 1, "x", "mask"]), max_size=3)))
    shape = [*draw(st.lists(st.sampled_from([3, 3, 1, 2, 0]), min_size=1, max_size=3)), 3]
    tensor = torch.zeros(shape, dtype=draw(st.sampled_from(DTYPES)))
    value: Any = draw(st.sampled_from(CHANGES))(tensor)
    for key in reversed(model.path):
        beside = draw(OTHERS) if draw(st.integers(0, 3)) == 0 else None
        value = {0: (value, beside), 1: [beside, value]}.get(key, {key: value})
    forms = [(value, None), ((value,), None), ((), {"x": value})]
    forms += [((value,), {name: draw(OTHERS)}) for name in ("other", "new")]
    return model, *draw(st.sampled_from(forms)), tensor


@pytest.mark.slow
@settings(max_examples=200)
@given(call=calls(), device=st.sampled_from(["meta", "cpu"]))
def test_any_call_is_counted_or_refused_by_name(call: Any, device: str) -> None:
    model, inputs, kwargs, tensor = call
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            record = profile(model, inputs, kwargs=kwargs, device=device)
        except (ValueError, TypeError) as error:
            if not re.search(r"inputs|kwargs|layout", str(error)):
                raise
            return
    assert record.agree is not False, record.disagreements
    assert record.agree is not None or record.agree_reason
    assert set(record.counts) | set(record.skipped) >= set(COUNTERS)
    assert str(record)
    assert record.to_dict()
    if all(isinstance(layer, nn.Linear | nn.ReLU | nn.LayerNorm | nn.Softmax) for layer in model):
        linear = (layer for layer in model if isinstance(layer, nn.Linear))
        factors = sum(4 if layer.weight.is_complex() else 1 for layer in linear)
        assert record.reference.mac == 3 * prod(tensor.shape) * factors
