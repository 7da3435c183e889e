"""Axons and wires: what the units of a model send one another.

A unit is an output element of a layer with weights: of a convolution, a product with a weight
matrix, a population, a recurrent layer. Theory has a dendrite pay in this currency (wu2023 in
references.bib). See `neuroconv.flops.value_sets` for how axons are traced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuroconv.core.arguments import Size, checked
from neuroconv.flops.inputs import Keywords, as_inputs
from neuroconv.flops.meta_copy import meta_copy
from neuroconv.flops.value_sets import INPUT, VALUE, Trace


@dataclass(frozen=True)
class Axons:
    """What the units of a model send one another, for one sample.

    Attributes:
        axons: values of units that a unit reads: one for each unit, position and time step.
        wires: pairs of such a value and a unit at a position that reads it, at whatever steps.
        input_wires: pairs of an input value, such as a pixel, and a unit that reads it.
        inputs: input values that a unit reads.
    """

    axons: int
    wires: int
    input_wires: int
    inputs: int


@checked
def count_axons(
    model: nn.Module, inputs: Any, *, kwargs: Keywords = None, limit: Size = 200_000_000
) -> Axons:
    """Counts what the units of a model send one another for one sample, in eval mode.

    A module whose units are more than one product each, such as cells with branches, has a method
    `trace_axons(layer, *inputs)`, which stands for its `forward`. It calls
    `layer(values, units, index)` for each layer of units, which returns the values that they send:
    `values` are (B, F, ...), where trailing axes are time, and unit u reads the S of F that
    `index[u]` names, index (U, S), or all of them if it is None. Other operators unite sets.

    Args:
        model: any module with its tensors on a device; it is left untouched.
        inputs, kwargs: its arguments, floating point; see `as_inputs`. One sample is traced.
        limit: pairs of a value and a reader that are looked at, some 5 million a second; units that
            read the same values are one reader.

    Raises:
        ValueError: a model on meta, or that reads values, an operator without a rule, too many
            pairs.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("the model is on meta, where a wiring names no axons")
    items = as_inputs(inputs, kwargs)
    if not any(tensor.is_floating_point() for tensor in items.tensors):
        raise ValueError(f"inputs ({items}) hold no floating-point values to trace")
    sample = items.map(lambda x: x[:1] if x.dim() and len(x) == items.batch else x)
    trace = Trace(limit)
    with (
        meta_copy(model, sample, "meta") as (copied, _),
        torch.device("cpu"),
        sdpa_kernel(SDPBackend.MATH),
    ):
        for module, twin in zip(model.modules(), copied.modules(), strict=True):
            # Buffers say where a weight is zero; what parameters are is left to chance.
            for name, parameter in twin._parameters.items():
                if parameter is not None:
                    chance = torch.rand(parameter.shape).add(0.5).to(parameter.dtype)
                    twin._parameters[name] = nn.Parameter(chance)
            for name, buffer in module._buffers.items():
                twin._buffers[name] = buffer if buffer is None else buffer.cpu()
            statement = getattr(twin, "trace_axons", None)
            if isinstance(twin, nn.RNNBase | nn.RNNCellBase):
                statement = partial(_recurrent, twin)
            if statement is not None:
                vars(twin)["forward"] = partial(statement, trace.layer)
        sample.map(trace.input).call(copied)
    read = np.bincount(trace.kinds[trace.is_read], minlength=3).tolist()
    wires = trace.wires.tolist()
    return Axons(read[VALUE], wires[VALUE], wires[INPUT], read[INPUT])


def _recurrent(module: Any, layer: Callable[..., Tensor], x: Tensor, hidden: Any = None) -> Any:
    """States the units of torch.nn's recurrent layers and cells, which read what their layer sent a
    step before."""
    before = hidden[0] if isinstance(hidden, tuple) else hidden
    units = getattr(module, "proj_size", 0) or module.hidden_size
    if isinstance(module, nn.RNNCellBase):
        after = layer(x if before is None else torch.cat([x, before], 1), units)
        return (after, torch.zeros_like(after)) if isinstance(module, nn.LSTMCell) else after
    values = x.permute(0, 2, 1) if module.batch_first else x.permute(1, 2, 0)  # (B, F, T)
    last = list[Tensor]()
    for _ in range(module.num_layers):
        sent = [layer(values, units) for _ in range(1 + module.bidirectional)]
        for steps, end in zip(sent, (-1, 0), strict=False):
            earlier = steps[..., 1:] if end == 0 else steps[..., :-1]
            start = [] if before is None else [before[len(last), ..., None]]
            layer(torch.cat([*start, earlier], -1), units)
            last.append(steps[..., end])
        values = torch.cat(sent, 1)
    state = torch.stack(last)
    states = (state, torch.zeros_like(state)) if isinstance(module, nn.LSTM) else state
    return values.permute(0, 2, 1) if module.batch_first else values.permute(2, 0, 1), states
