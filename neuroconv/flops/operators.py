"""The exact counter's table: for an operator its rule, or the reason why it costs nothing."""

from collections.abc import Mapping
from typing import Any

import torch

from neuroconv.flops import amounts, contractions
from neuroconv.flops.calls import Call, name_of
from neuroconv.flops.rules import DATA, Rule, read_rules

RULES: Mapping[str, Rule] = read_rules("exact", {**vars(amounts), **vars(contractions)})
ZERO: Mapping[str, str] = {
    name: reason for reason, names in DATA["zero"].items() for name in names.split()
}


def look_up(func: Any, call: Call) -> Rule | str | None:
    """Returns the rule of a call, or why it costs nothing; None if neither is known."""
    operator = name_of(func)
    if func.is_view or torch.Tag.inplace_view in func.tags:
        return "a view: no element moves"
    if operator in ZERO:
        return ZERO[operator]
    tensors = call.operands + call.results
    if any(t.layout is not torch.strided for t in tensors):
        return None  # the number of elements that a sparse tensor stores is not in its shape
    if not any(t.is_floating_point() or t.is_complex() for t in tensors):
        return "integers or Booleans alone"
    if operator in RULES:
        return RULES[operator]
    # All that torch tags as pointwise is counted alike.
    return RULES["abs"] if is_pointwise(func) and call.results else None


def is_pointwise(func: Any) -> bool:
    """Returns whether torch tags an operator, or the aten operator of a prim, as pointwise."""
    if func.namespace != "prims":
        return torch.Tag.pointwise in func.tags
    aten = getattr(torch.ops.aten, name_of(func), None)
    overloads = () if aten is None else (getattr(aten, name) for name in aten.overloads())
    return any(torch.Tag.pointwise in overload.tags for overload in overloads)
